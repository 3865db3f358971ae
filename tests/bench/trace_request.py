"""Trace one `POST /embed` through the code: count files, functions, changes of file, and types that carry its cells.

    PYTHONPATH=. python tests/bench/trace_request.py                              # this checkout
    python tests/bench/trace_request.py --root OTHER --module app.cli             # another one, such as an older layout

A real server runs with a profiler in every process and thread. The first request warms it up; the second is traced. The
counts follow a reader of the code: each function of the project counts once, at its first call, without properties and
special methods. A change of file is a first call in a different file than the previous call of the same thread.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from itertools import groupby
from pathlib import Path

import httpx
import numpy as np
from anndata import AnnData
from scipy import sparse

NUM_CELLS = 41
GENES = ["CD3D", "CD3E", "IL7R", "LYZ", "S100A9", "CST3", "MS4A1", "CD79A", "NKG7", "GNLY"]

# Runs at the start of every interpreter, including parser processes.
PROFILER = """
import dataclasses, json, os, sys, threading, time
ROOT, OUT, CELLS = TRACED
SKIPPED = (os.path.join(ROOT, ".venv"), os.path.join(ROOT, "tests"))
file = open(os.path.join(OUT, f"{os.getpid()}.jsonl"), "a", buffering=1)

def is_cells(value):
    if type(value).__name__ == "ndarray":
        return value.ndim > 0 and value.shape[0] in (CELLS, CELLS + 1, 3 * CELLS)
    return isinstance(value, (bytes, bytearray)) and len(value) > 6 * CELLS

def carries(value, depth=0):
    if depth > 4:
        return False
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return any(carries(getattr(value, field.name, None), depth + 1) for field in dataclasses.fields(value))
    if isinstance(value, (list, tuple)):
        return any(carries(each, depth + 1) for each in value[:4])
    if isinstance(value, dict):
        return any(carries(each, depth + 1) for each in list(value.values())[:8])
    return is_cells(value)

def is_carrier(value):
    kind = type(value)
    ours = kind.__module__.split(".")[0] in ("scpalm", "app", "model")
    return ours and dataclasses.is_dataclass(value) and carries(value)

def is_property(frame):
    kind = type(frame.f_locals.get("self"))
    return isinstance(getattr(kind, frame.f_code.co_name, None), property)

busy = threading.local()

def profile(frame, event, argument):
    if event not in ("call", "return") or getattr(busy, "on", False):
        return
    code = frame.f_code
    path = code.co_filename
    if not path.startswith(ROOT) or path.startswith(SKIPPED) or code.co_name.startswith("<"):
        return
    busy.on = True
    try:
        values = list(frame.f_locals.values()) if event == "call" else [argument]
        carriers = [type(value).__name__ for value in values if is_carrier(value)]
        # RESUME 0 starts a function, other arguments resume a generator or coroutine.
        started = event == "call" and code.co_code[frame.f_lasti + 1] == 0
        name = code.co_name
        if started and (name.startswith("__") or is_property(frame)):
            started = False  # a reader does not follow calls such as `len(rows)` or `rows.num_bytes`
        if started or carriers:
            name = code.co_qualname
            file.write(json.dumps([time.monotonic(), threading.get_ident(), path, name, started, carriers]) + "\\n")
    finally:
        busy.on = False

threading.setprofile(profile)
sys.setprofile(profile)
"""


def write_cells(path: Path) -> None:
    """Write an h5ad file of a few cells with three counts each."""
    indices = [(cell + step) % len(GENES) for cell in range(NUM_CELLS) for step in range(3)]
    data = [1.0 + (cell * step) % 7 for cell in range(NUM_CELLS) for step in range(3)]
    indptr = list(range(0, 3 * NUM_CELLS + 1, 3))
    counts = sparse.csr_matrix((data, indices, indptr), shape=(NUM_CELLS, len(GENES)), dtype=np.float32)
    cells = AnnData(counts)
    cells.var_names, cells.obs_names = GENES, [f"cell{number}" for number in range(NUM_CELLS)]
    cells.write_h5ad(path)


def post(url: str, path: Path) -> tuple[float, float]:
    """Send a request. Returns its start and end by the monotonic clock, which all processes share."""
    start = time.monotonic()
    httpx.post(f"{url}/embed", files={"file": path.read_bytes()}, timeout=60).raise_for_status()
    return start, time.monotonic()


def traced(root: Path, module: str, folder: Path) -> list[list[object]]:
    """The calls of the second request, in order within each thread."""
    # Parser processes get only a few environment variables, so the environment cannot be used.
    values = (f"{root}/", str(folder / "out"), NUM_CELLS)
    (folder / "sitecustomize.py").write_text(f"TRACED = {values!r}\n{PROFILER}", encoding="utf-8")
    for name in ("out", "work"):
        (folder / name).mkdir()
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SCPALM_")}
    environment = kept | {"PYTHONPATH": f"{folder}:{root}"}
    log = folder / "log"
    with log.open("wb") as stderr:
        server = subprocess.Popen(
            [sys.executable, "-m", module, "serve", "--port", "0"], cwd=folder / "work", env=environment, stderr=stderr
        )
    try:
        while (found := re.search(r"listening on (http://\S+)", log.read_text())) is None or not _ready(found[1]):
            if server.poll() is not None:
                raise SystemExit(log.read_text())
            time.sleep(0.1)
        write_cells(folder / "cells.h5ad")
        post(found[1], folder / "cells.h5ad")
        start, end = post(found[1], folder / "cells.h5ad")
        time.sleep(0.5)  # the last lines of each process
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(60)
    events = []
    for path in sorted((folder / "out").iterdir()):
        lines = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
        events += [[path.stem, *line] for line in lines if start <= line[0] <= end]
    return sorted(events, key=lambda event: (event[0], event[2], event[1]))


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/health/ready", timeout=60).status_code == 200
    except httpx.TransportError:
        return False


def changes(files: Iterable[str]) -> tuple[int, int]:
    """Number of changes of file, and of changes back to a file that was left before."""
    order = [name for name, _ in groupby(files)]
    return max(0, len(order) - 1), len(order) - len(set(order))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, default=Path(__file__).parents[2], help="checkout to trace")
    parser.add_argument("--module", default="scpalm.app.cli", help="module of its command line")
    parser.add_argument("--list", action="store_true", help="print every call")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        events = traced(chosen.root.resolve(), chosen.module, Path(folder))
    calls, seen = [], set()
    for event in events:
        if event[5] and (event[3], event[4]) not in seen:
            seen.add((event[3], event[4]))
            calls.append(event)
    total = back = 0
    for _, group in groupby(calls, key=lambda event: (event[0], event[2])):
        thread = list(group)
        more, returns = changes(str(event[3]) for event in thread)
        total, back = total + more, back + returns
        if chosen.list:
            print("\n".join(f"{event[0]} {event[3]} {event[4]}" for event in thread), end="\n\n")
    carriers = sorted({name for event in events for name in event[6]})  # type: ignore[attr-defined]
    print(f"files            {len({event[3] for event in calls})}")
    print(f"functions        {len(calls)}")
    print(f"changes of file  {total}, {back} of them back to a file already left")
    print(f"carriers         {len(carriers)}: {', '.join(carriers)}")


if __name__ == "__main__":
    main()
