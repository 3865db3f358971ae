"""Memory of a service whose model is swapped again and again, with requests of every kind in between.

PYTHONPATH=. python tests/bench/bench_swaps.py [--swaps 7]
MALLOC_ARENA_MAX=64 PYTHONPATH=. python tests/bench/bench_swaps.py       # with a heap for each thread
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
import time
from pathlib import Path

import psutil  # type: ignore[import-untyped, unused-ignore]

from scpalm.app.main import create_app
from scpalm.app.serving.freed_memory import use_few_arenas
from scpalm.app.settings import Settings
from scpalm.model.bundle import DEFAULT_BUNDLE
from tests.app.fakes import Client
from tests.bench.soak_load import PATHS, make_bodies

MOST_BYTES = 3_000_000
VERSIONS = ("1", "2")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--swaps", type=int, default=7)
    options = parser.parse_args()
    use_few_arenas()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for version in VERSIONS:
            shutil.copytree(DEFAULT_BUNDLE, folder / version)
            manifest = folder / version / "manifest.json"
            manifest.write_text(json.dumps(json.loads(manifest.read_text()) | {"version": version}))
        link = folder / "current"
        link.symlink_to(VERSIONS[0])
        settings = Settings(bundle=link, reload_seconds=0.5, spool_dir=folder, results_dir=folder / "jobs")
        with Client(create_app(settings)) as client:
            client.wait_until_loaded()
            measure(client, link, options.swaps)


def measure(client: Client, link: Path, swaps: int) -> None:
    """Print the unique memory of the process, without its parsers, after each round of requests."""
    bodies = [(kind, body) for kind, body in make_bodies() if len(body) < MOST_BYTES]
    print("| swaps | MB |\n|---|---|")
    for number in range(swaps + 1):
        for path in sorted(set(PATHS)):
            for kind, body in bodies:
                client.post(path, content=body, headers={"content-type": kind}).raise_for_status()
        print(f"| {number} | {psutil.Process().memory_full_info().uss / 1e6:.0f} |", flush=True)
        version = VERSIONS[(number + 1) % 2]
        following = link.with_name("next")
        following.symlink_to(version)
        following.replace(link)
        while client.get("/models").json()["models"][0]["version"] != version:
            time.sleep(0.2)
        time.sleep(3.0)  # the old model is closed, and its memory returned


if __name__ == "__main__":
    main()
