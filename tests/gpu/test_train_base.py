"""The rehearsal of `train_base`, without the packages that a machine with a GPU may lack."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]

REHEARSAL = """
import sys

LACKING = {
    "anndata", "fastapi", "h5py", "httpx", "igraph", "matplotlib", "onnxscript", "pydantic", "scanpy", "starlette",
    "tensorboard", "tqdm", "typer", "umap", "uvicorn", "zarr",
}


class Without:
    # A finder that does not find these packages.

    def __init__(self, finder):
        self.finder = finder

    def find_spec(self, name, path=None, target=None):
        return None if name.partition(".")[0] in LACKING else self.finder.find_spec(name, path, target)

    def __getattr__(self, name):
        return getattr(self.finder, name)


sys.meta_path[:] = [Without(finder) for finder in sys.meta_path]
from tests.gpu.rehearse_train_base import rehearse

report = rehearse(float(sys.argv[1]))
assert report["finished"], report
loaded = LACKING & {name.partition(".")[0] for name in sys.modules}
assert not loaded, loaded
"""


def test_the_rehearsal_trains_in_two_calls_and_the_parts_make_a_run() -> None:
    done = subprocess.run(
        [sys.executable, "-c", REHEARSAL, "0.3"],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "stage2: " in done.stdout and "the run at home is whole" in done.stdout
