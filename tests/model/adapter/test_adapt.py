"""A bundle adapted to cells: better on others of their kind, same bits in any batch, refused when it is worse."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy import sparse

import scpalm
from scpalm.model import adapting
from scpalm.model.adapter.adapter import ADAPTER_FILE, adapter_of
from scpalm.model.adapter.fit import fit_components
from scpalm.model.adapter.score import label_accuracy
from scpalm.model.adapting import AdaptOptions, WorseError, adapt_bundle
from scpalm.model.bundle import Bundle
from scpalm.model.engine import Engine, load
from scpalm.model.errors import BundleError, InputError
from scpalm.model.genes.rows import GeneSet, Rows
from tests.training.tiny import NUM_GENES

NUM_CELLS = 300


def cells_of(seed: int, num_cells: int = NUM_CELLS, *, shift: float = 0.0) -> anndata.AnnData:
    """Cells of three types in two batches; types differ in a few genes, which vary little over all."""
    random = np.random.default_rng(seed)
    base = np.random.default_rng(1).gamma(1.0, 3.0, NUM_GENES)
    types, batch = random.integers(3, size=num_cells), random.integers(2, size=num_cells)
    rate = np.tile(base, (num_cells, 1))
    for kind in range(3):
        rate[:, 10 * kind : 10 * kind + 10] *= np.where(types == kind, 4.0, 1.0)[:, None]
    factors = np.exp(np.random.default_rng(2).normal(0, 1, NUM_GENES) * shift)
    rate = np.where(batch[:, None] == 1, rate * factors, rate)
    rate *= np.exp(random.normal(0, 0.5, (num_cells, 1)) * np.random.default_rng(3).normal(0, 1, NUM_GENES))
    obs = pd.DataFrame(
        {"cell_type": [f"type{kind}" for kind in types], "batch": [f"b{one}" for one in batch]},
        index=[f"cell{i}" for i in range(num_cells)],
    )
    adata = anndata.AnnData(sparse.csr_matrix(random.poisson(rate).astype(np.float32)), obs=obs)
    adata.var_names = [f"GENE{i}" for i in range(NUM_GENES)]
    return adata


@pytest.fixture(scope="module")
def engine(tiny_bundle: Bundle) -> Engine:
    return load(tiny_bundle, "cpu")


@pytest.fixture(scope="module")
def adapted(engine: Engine, tmp_path_factory: pytest.TempPathFactory) -> Engine:
    out = tmp_path_factory.mktemp("adapt") / "mine"
    options = AdaptOptions(label_key="cell_type", batch_key="batch", name="mine")
    adapt_bundle(engine.bundle, engine.session, [cells_of(0)], out, options)
    return load(out, "cpu")


def accuracy(engine: Engine) -> float:
    """Of labels taken from the cells that the model was adapted to, on new cells."""
    old, new = cells_of(0), cells_of(1)
    for adata in (old, new):
        engine.embed(adata)
    codes = [adata.obs["cell_type"].astype("category").cat.codes.to_numpy(np.int32) for adata in (old, new)]
    return label_accuracy(old.obsm["X_scpalm"], codes[0], new.obsm["X_scpalm"], codes[1])


def test_new_cells_are_told_apart_better(engine: Engine, adapted: Engine) -> None:
    assert accuracy(adapted) > accuracy(engine) + 0.03


def test_the_card_says_what_was_done(adapted: Engine) -> None:
    manifest = adapted.bundle.manifest
    card = manifest["adapter"]
    assert (manifest["name"], card["cells"], card["labels"]) == ("mine", NUM_CELLS, ["type0", "type1", "type2"])
    assert [score["name"] for score in card["held_out"]] == [
        "label accuracy (15 nearest)",
        "overlap of batches",
        "agreement of two halves of the counts",
        "variance left unexplained",
    ]
    assert card["held_out"][-1]["after"] < card["held_out"][-1]["before"]


def test_a_cell_has_the_same_bits_alone_and_among_others(adapted: Engine) -> None:
    adata = cells_of(3, 40)
    alone = adata[17:18].copy()
    for one in (adata, alone):
        adapted.embed(one)
    values = adata.obsm["X_scpalm"]
    np.testing.assert_array_equal(values[17:18], alone.obsm["X_scpalm"])
    np.testing.assert_allclose(np.linalg.norm(values, axis=1), 1, atol=1e-5)
    opened = adapter_of(adapted.bundle)
    assert opened is not None and values.shape[1] == opened.adapter.width


def test_other_outputs_are_those_of_the_start(engine: Engine, adapted: Engine) -> None:
    for output in ("h_C", "f"):
        one, two = cells_of(3, 20), cells_of(3, 20)
        engine.embed(one, output=output)
        adapted.embed(two, output=output)
        np.testing.assert_array_equal(one.obsm[f"X_scpalm_{output}"], two.obsm[f"X_scpalm_{output}"])


def test_the_map_is_that_of_the_adapted_embedding(engine: Engine, adapted: Engine) -> None:
    one, two = cells_of(3, 60), cells_of(3, 60)
    engine.umap(one)
    adapted.umap(two)
    assert two.obsm["X_scpalm_umap"].shape == (60, 2)
    assert not np.array_equal(one.obsm["X_scpalm_umap"], two.obsm["X_scpalm_umap"])


def test_fewer_measured_genes_are_corrected_for(adapted: Engine) -> None:
    whole = cells_of(3, 40)
    part = whole[:, : NUM_GENES - 6].copy()
    for one in (whole, part):
        adapted.embed(one)
    cosine = (whole.obsm["X_scpalm"] * part.obsm["X_scpalm"]).sum(axis=1)
    assert np.median(cosine) > 0.8


def test_nothing_is_written_if_held_out_cells_get_worse(
    engine: Engine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scores = iter([0.9, 0.5, 0.9, 0.5])
    monkeypatch.setattr(adapting, "label_accuracy", lambda *arrays: next(scores))
    options = AdaptOptions(label_key="cell_type")
    with pytest.raises(WorseError, match=r"0\.900 -> 0\.500") as caught:
        adapt_bundle(engine.bundle, engine.session, [cells_of(0)], tmp_path / "worse", options)
    assert "--force" in caught.value.hint and not list(tmp_path.iterdir())
    forced = AdaptOptions(label_key="cell_type", force=True)
    adapt_bundle(engine.bundle, engine.session, [cells_of(0)], tmp_path / "worse", forced)
    assert Bundle.load(tmp_path / "worse").name == f"{engine.bundle.name}-adapted"


def test_labels_and_batches_are_optional(engine: Engine, tmp_path: Path) -> None:
    adapt_bundle(engine.bundle, engine.session, [cells_of(0)], tmp_path / "one")
    first, second = cells_of(0, shift=0.5), cells_of(1, shift=0.5)
    adapt_bundle(engine.bundle, engine.session, [first, second], tmp_path / "two", AdaptOptions(force=True))
    assert Bundle.load(tmp_path / "two").manifest["adapter"]["batches"] == ["file 1", "file 2"]


def test_the_same_cells_give_the_same_adapter(engine: Engine, tmp_path: Path) -> None:
    for name in ("one", "two"):
        adapt_bundle(engine.bundle, engine.session, [cells_of(0)], tmp_path / name)
    one, two = ((tmp_path / name / ADAPTER_FILE).read_bytes() for name in ("one", "two"))
    assert one == two


@pytest.mark.parametrize(
    ("num_cells", "options", "code"),
    [
        (30, AdaptOptions(), "too-few-cells"),
        (100, AdaptOptions(label_key="nothing"), "no-obs-column"),
        (100, AdaptOptions(batch_key="nothing"), "no-obs-column"),
    ],
)
def test_unusable_cells_are_refused(
    engine: Engine, tmp_path: Path, num_cells: int, options: AdaptOptions, code: str
) -> None:
    with pytest.raises(InputError) as caught:
        adapt_bundle(engine.bundle, engine.session, [cells_of(0, num_cells)], tmp_path / "out", options)
    assert caught.value.code == code


def test_an_existing_folder_is_kept(engine: Engine, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError, match="exists already"):
        adapt_bundle(engine.bundle, engine.session, [cells_of(0)], tmp_path / "out")


def test_a_damaged_adapter_is_refused(adapted: Engine, tmp_path: Path) -> None:
    manifest = dict(adapted.bundle.manifest)
    (tmp_path / ADAPTER_FILE).write_bytes(b"no adapter")
    with pytest.raises(BundleError, match="not a valid adapter"):
        adapter_of(Bundle(tmp_path, manifest))


def test_the_python_call_opens_the_new_model(tiny_bundle: Bundle, tmp_path: Path) -> None:
    found = scpalm.adapt(cells_of(0), tmp_path / "mine", AdaptOptions(label_key="cell_type"), bundle=tiny_bundle.path)
    assert found.bundle.path == tmp_path / "mine"


def test_components_are_those_of_the_dense_matrix() -> None:
    counts = cells_of(5, 60).X.toarray()
    x = np.log1p(1e4 * counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    rows, genes = np.nonzero(x)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=60))]).astype(np.int64)
    sets = (GeneSet(np.ones(NUM_GENES, bool)),)
    basis = fit_components(
        Rows(indptr, genes.astype(np.int32), x[rows, genes], sets, np.zeros(60, np.int32)), NUM_GENES
    )
    y = np.log1p(np.expm1(x.astype(np.float64)) * 0.1)
    sd = y.std(axis=0)
    weighted = (y - y.mean(axis=0)) * np.maximum(sd, np.quantile(sd[sd > 0], 0.2)) ** -0.25
    exact = np.linalg.svd(weighted, full_matrices=False)[2][:5].T
    found = basis.components[:, :5] * basis.scale[:5]
    np.testing.assert_allclose(np.abs((exact * found).sum(axis=0)), 1, atol=1e-3)
