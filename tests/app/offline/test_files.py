from __future__ import annotations

from pathlib import Path

import anndata
import h5py
import numpy as np
import pytest
from scipy import sparse

from scpalm.app.offline.files import process_file
from scpalm.model.bundle import Bundle
from scpalm.model.engine import Engine
from scpalm.model.errors import InputError, UnreadableError
from scpalm.model.genes.prepare import CHUNK_CELLS, Preparer
from scpalm.model.progress import NoProgress, Progress
from scpalm.model.spec import RequestSpec
from tests.app.fakes import FakeSession, expected, make_vocabulary
from tests.model.recorded_progress import RecordedProgress

GENES = [f"GENE{n}" for n in range(40)]
NUM_CELLS = 2 * CHUNK_CELLS + 3


def embed_file(
    source: Path, target: Path, bundle: Bundle, session: FakeSession, progress: Progress | None = None
) -> None:
    process_file(source, target, Engine(bundle, session), RequestSpec(("embed",)), progress or NoProgress())


@pytest.fixture
def bundle(bundle_dir: Path) -> Bundle:
    return Bundle.load(bundle_dir)


def make_cells(num_cells: int = NUM_CELLS) -> anndata.AnnData:
    counts = np.random.default_rng(0).poisson(0.5, (num_cells, len(GENES))).astype(np.float32)
    counts[:, 0] = 1
    cells = anndata.AnnData(sparse.csr_matrix(counts))
    cells.obs_names, cells.var_names = [f"cell{n}" for n in range(num_cells)], GENES
    cells.obsm["X_pca"] = np.ones((num_cells, 2))
    return cells


def test_every_cell_gets_its_own_embedding_over_many_chunks(
    tmp_path: Path, bundle: Bundle, session: FakeSession
) -> None:
    cells = make_cells()
    cells.write_h5ad(tmp_path / "in.h5ad")
    progress = RecordedProgress()
    embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session, progress)
    done = progress.advanced
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    from scpalm.model.genes.matrix import CellMatrix

    matrix = CellMatrix(
        cells.X.indptr.astype(np.int64), cells.X.indices.astype(np.int32), cells.X.data, GENES, list(cells.obs_names)
    )
    rows = Preparer(make_vocabulary(), GENES).prepare(matrix).rows
    np.testing.assert_array_equal(out.obsm["X_scpalm"], expected(rows))
    assert out.obsm["X_scpalm"].dtype == np.float32
    assert sum(done) == NUM_CELLS and len(done) == 3
    assert list(out.obs_names) == list(cells.obs_names) and "X_pca" in out.obsm
    note = out.uns["scpalm"]
    assert note["model"] == {"name": "fake", "version": "0.1"} and note["input"]["detected"] == "counts"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "out.h5ad"]


def test_embedding_again_replaces_the_key(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    cells = make_cells(5)
    cells.obsm["X_scpalm"] = np.zeros((5, 99))
    cells.uns["scpalm"] = "old"
    cells.write_h5ad(tmp_path / "in.h5ad")
    embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session)
    out = anndata.read_h5ad(tmp_path / "out.h5ad")
    assert out.obsm["X_scpalm"].shape == (5, 3)
    assert out.uns["scpalm"]["model"]["name"] == "fake"


def test_files_without_obsm_and_uns_get_them(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    make_cells(5).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["obsm"], file["uns"]
    embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session)
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"].shape == (5, 3)


def test_a_failure_leaves_no_partial_file_and_keeps_the_old_one(
    tmp_path: Path, bundle: Bundle, session: FakeSession
) -> None:
    cells = make_cells()
    cells.X[NUM_CELLS - 1, 0] = -1
    cells.write_h5ad(tmp_path / "in.h5ad")
    (tmp_path / "old.h5ad").write_bytes(b"precious")
    for name in ("out.h5ad", "old.h5ad"):
        with pytest.raises(InputError, match=f"cell{NUM_CELLS - 1}"):
            embed_file(tmp_path / "in.h5ad", tmp_path / name, bundle, session)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.h5ad", "old.h5ad"]
    assert (tmp_path / "old.h5ad").read_bytes() == b"precious"


def test_the_input_is_never_overwritten(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    path = tmp_path / "in.h5ad"
    make_cells(5).write_h5ad(path)
    (tmp_path / "alias.h5ad").symlink_to(path)
    before = path.read_bytes()
    for target in (path, tmp_path / "alias.h5ad", tmp_path / "." / "in.h5ad"):
        with pytest.raises(InputError, match="the input file"):
            embed_file(path, target, bundle, session)
    assert path.read_bytes() == before


def test_external_links_are_not_followed(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    make_cells(5).write_h5ad(tmp_path / "in.h5ad")
    with h5py.File(tmp_path / "other.h5", "w") as other:
        other.create_group("obsm")
    with h5py.File(tmp_path / "in.h5ad", "r+") as file:
        del file["obsm"]
        file["obsm"] = h5py.ExternalLink(str(tmp_path / "other.h5"), "/obsm")
    with pytest.raises(InputError, match="obsm"):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session)
    with h5py.File(tmp_path / "other.h5") as other:
        assert not list(other["obsm"])
    assert not (tmp_path / "out.h5ad").exists()


def test_an_unrelated_partial_file_is_not_touched(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    source = tmp_path / "out.h5ad.partial"
    make_cells(5).write_h5ad(source)
    before = source.read_bytes()
    embed_file(source, tmp_path / "out.h5ad", bundle, session)
    assert source.read_bytes() == before
    assert anndata.read_h5ad(tmp_path / "out.h5ad").obsm["X_scpalm"].shape == (5, 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out.h5ad", "out.h5ad.partial"]


def test_the_file_gets_the_usual_permissions(tmp_path: Path, bundle: Bundle, session: FakeSession) -> None:
    make_cells(5).write_h5ad(tmp_path / "in.h5ad")
    embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session)
    (tmp_path / "usual").touch()
    assert (tmp_path / "out.h5ad").stat().st_mode == (tmp_path / "usual").stat().st_mode


@pytest.mark.parametrize(
    "fault", [KeyError("no object"), RuntimeError("cannot read\nthe header"), ValueError("no name")]
)
def test_hdf5_errors_while_writing_are_user_errors(
    tmp_path: Path, bundle: Bundle, session: FakeSession, monkeypatch: pytest.MonkeyPatch, fault: Exception
) -> None:
    def broken(*_: object, **__: object) -> None:
        raise fault

    make_cells(5).write_h5ad(tmp_path / "in.h5ad")
    monkeypatch.setattr(h5py.Group, "create_dataset", broken)
    with pytest.raises(UnreadableError, match="cannot be written"):
        embed_file(tmp_path / "in.h5ad", tmp_path / "out.h5ad", bundle, session)
    assert [path.name for path in tmp_path.iterdir()] == ["in.h5ad"]
