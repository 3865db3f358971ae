from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest

from scpalm.model.errors import InputError
from scpalm.model.output.h5ad_writer import H5adWriter
from scpalm.model.tasks.task import OutputSpec
from tests.model.small_cells import NUM_CELLS, small_counts

EMBEDDING = OutputSpec("embedding", "X_scpalm", 3)
LAYER = OutputSpec("imputed", "scpalm", 3, placement="layers")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    cells = small_counts()
    cells.obsm["X_pca"] = np.ones((NUM_CELLS, 2))
    cells.write_h5ad(tmp_path / "cells.h5ad")
    return tmp_path / "cells.h5ad"


def write(path: Path, output: OutputSpec = EMBEDDING) -> None:
    with H5adWriter(path) as file:
        file.column(output, NUM_CELLS).put(0, np.full((NUM_CELLS, 3), 7, np.float32))
        file.note({"key": output.key})


def names(path: Path) -> set[str]:
    found: set[str] = set()
    with h5py.File(path) as file:
        file.visit(found.add)
    return found


@pytest.mark.parametrize("name", ["obsm", "layers", "uns"])
@pytest.mark.parametrize("target", ["/", "obs", "var", "obsp", "obs/deep"])
@pytest.mark.parametrize("soft", [True, False])
def test_no_result_is_written_where_a_link_leads(path: Path, name: str, target: str, soft: bool) -> None:
    with h5py.File(path, "r+") as file:
        group = file.require_group(target) if target != "/" else file["/"]
        if name in file:
            del file[name]
        file[name] = h5py.SoftLink(f"/{target.strip('/')}") if soft else group
    output = LAYER if name == "layers" else EMBEDDING
    before = names(path)
    with pytest.raises(InputError, match=f"'{name}' is a link") as caught:
        write(path, output)
    assert caught.value.code == "linked-group" and caught.value.field == name
    added = names(path) - before
    assert not [found for found in added if not found.startswith(("obsm", "layers"))], "only what is no link is written"


def test_a_link_elsewhere_to_the_group_is_refused_too(path: Path) -> None:
    with h5py.File(path, "r+") as file:
        file["uns/mine"] = file["obsm"]
    with pytest.raises(InputError, match="'uns/mine'"):
        write(path)


def test_older_results_are_replaced_and_no_room_is_left_over(path: Path) -> None:
    for _ in range(2):
        write(path)
    found = anndata.read_h5ad(path)
    np.testing.assert_array_equal(found.obsm["X_scpalm"], np.full((NUM_CELLS, 3), 7))
    np.testing.assert_array_equal(found.obsm["X_pca"], np.ones((NUM_CELLS, 2)))
    assert path.stat().st_size < 200_000, "HDF5 gives back what was reserved"


_WRITE = """
import sys
from pathlib import Path
from tests.model.output.test_h5ad_writer import write
try:
    write(Path(sys.argv[1]))
except OSError as error:
    print("errno", error.errno)
"""


@pytest.mark.parametrize("free", [0, 4096, 65536])
def test_a_disk_that_fills_up_is_reported_and_ends_no_process(
    path: Path, small_disk: Callable[[int], Path], free: int
) -> None:
    disk = small_disk(1 << 20)
    copy = disk / "cells.h5ad"
    copy.write_bytes(path.read_bytes())
    filler = (1 << 20) - -(-copy.stat().st_size // 4096) * 4096 - free
    (disk / "filler").write_bytes(bytes(filler))
    # In a separate process, because HDF5 crashes the one in which it cannot write.
    done = subprocess.run([sys.executable, "-c", _WRITE, copy], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout.strip()) == (0, "errno 28"), done.stderr


def test_room_that_was_reserved_and_not_used_is_given_back(path: Path) -> None:
    before = path.stat().st_size
    write(path)
    added = path.stat().st_size - before
    assert 0 < added < 16 << 10, "a few values and a note"
    assert anndata.read_h5ad(path).obsm["X_scpalm"].shape == (NUM_CELLS, 3)
