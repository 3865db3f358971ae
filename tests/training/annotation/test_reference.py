"""The reference of a bundle: which cells are used, how it is calibrated, and what the bundle then holds."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from scpalm.model.annotation.bundled import load_reference, reference_of
from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError, InputError, MissingPartError
from scpalm.training.annotation.build import add_reference
from scpalm.training.annotation.calibrate import HeldOut, answers_without_own_set, calibrate
from scpalm.training.annotation.cells import CorpusCells, ReferenceOptions, balanced, labelled_cells
from scpalm.training.cell_types.table import CellType, cell_type_table
from scpalm.training.corpus.reader import Corpus
from scpalm.training.export.bundle_files import add_files
from tests.training.bundles import exported


@pytest.fixture
def corpus(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Corpus:
    """The tiny corpus with labels of two sets that share types."""
    folder = shutil.copytree(exported(tmp_path_factory).corpus, tmp_path / "corpus")
    obs = pd.read_parquet(folder / "obs.parquet")
    half = np.arange(len(obs)) % 2
    obs["dataset"] = np.where(half, "pbmc_sorted_mudan", "pbmc_zheng500_safe")
    third = np.arange(len(obs)) // 2 % 2
    obs["cell_type"] = np.where(half, np.where(third, "nk", "bcells"), np.where(third, "cd56_NK", "bcell"))
    obs.to_parquet(folder / "obs.parquet")
    return Corpus(folder)


@pytest.fixture
def bundle(tmp_path_factory: pytest.TempPathFactory, tmp_path: Path) -> Path:
    return shutil.copytree(exported(tmp_path_factory).bundle, tmp_path / "bundle")


def test_a_bundle_gets_a_reference_that_can_be_opened(corpus: Corpus, bundle: Path) -> None:
    width = int(Bundle.load(bundle).manifest["network"]["width"])
    with pytest.raises(MissingPartError, match="scpalm-train reference"):
        reference_of(Bundle.load(bundle), width)
    entry = add_reference(corpus, bundle, ReferenceOptions(max_cells=30, max_of_label=20))
    assert (entry["cells"], entry["stored_cells"], entry["labels"]) == (80, 30, 2)
    loaded = Bundle.load(bundle)
    assert loaded.manifest["reference"]["held_out"]["sets"].keys() == {"pbmc_sorted_mudan", "pbmc_zheng500_safe"}
    opened = reference_of(loaded, width)
    assert opened.reference.names == ("B cell", "NK cell")
    assert opened.ontology_ids["natural killer cell"] == "CL:0000623"
    assert opened.sources == ("pbmc_sorted_mudan", "pbmc_zheng500_safe")
    again = add_reference(corpus, bundle, ReferenceOptions(max_cells=30, max_of_label=20))
    assert again == entry, "the same corpus and bundle give the same reference"
    with pytest.raises(BundleError, match="has width"):
        reference_of(Bundle.load(bundle), width + 1)


def test_a_damaged_reference_is_refused(corpus: Corpus, bundle: Path) -> None:
    add_reference(corpus, bundle, ReferenceOptions(max_cells=30, max_of_label=20))
    card = json.loads((bundle / "reference.json").read_text())
    add_files(bundle, {"reference.json": json.dumps(card | {"entries": card["entries"][:2]}).encode()}, {})
    with pytest.raises(BundleError, match="damaged reference"):
        load_reference(Bundle.load(bundle))


def test_a_label_that_the_table_lacks_is_a_separate_type(corpus: Corpus) -> None:
    corpus.obs["cell_type"] = "no such type"
    cells = labelled_cells(corpus, 20, 0)
    assert set(cells.broad) == {"no such type"} and cells.labels_outside(cell_type_table()) == ["no such type"]
    corpus.obs["cell_type"] = "b CELL"
    cells = labelled_cells(corpus, 20, 0)
    assert set(cells.broad) == {"B cell"} and cells.labels_outside(cell_type_table()) == []


def test_cells_without_labels_are_refused(corpus: Corpus) -> None:
    corpus.obs["cell_type"] = ""
    with pytest.raises(InputError, match="No cell"):
        labelled_cells(corpus, 20, 0)


def cells_of(*groups: tuple[str, str, int]) -> CorpusCells:
    """Groups of (source, broad type, number of cells)."""
    types = [CellType(broad, source, "", broad, broad, "blood") for source, broad, num in groups for _ in range(num)]
    sources = np.array([cell_type.source for cell_type in types], dtype=object)
    return CorpusCells(np.arange(len(types)), types, sources, np.zeros(len(types), bool))


def test_types_get_equal_shares_of_the_stored_cells() -> None:
    cells = cells_of(("a", "T cell", 90), ("b", "T cell", 10), ("a", "B cell", 50), ("a", "neuron", 4), ("a", "", 9))
    chosen = cells.broad[balanced(cells, 44)]
    assert pd.Series(chosen).value_counts().to_dict() == {"T cell": 20, "B cell": 20, "neuron": 4}
    of_t = cells.sources[balanced(cells, 44)][chosen == "T cell"]
    assert (of_t == "b").sum() == 10
    assert len(balanced(cells, 1000)) == 154


def test_calibration_uses_sets_that_are_left_out() -> None:
    random = np.random.default_rng(0)
    cells = cells_of(("a", "T cell", 30), ("a", "B cell", 30), ("b", "T cell", 30), ("b", "neuron", 30))
    centre = {"T cell": 0.0, "B cell": 5.0, "neuron": 30.0}
    array = np.array([[centre[name]] for name in cells.broad]) + random.normal(size=(120, 1))
    found = {one.source: one for one in answers_without_own_set(cells, array, 100)}
    # Without set b there is no neuron; without set a there is no B cell.
    assert found["a"].known.sum() == 30 and found["b"].known.sum() == 30
    assert found["b"].right[found["b"].known].mean() > 0.9
    calibration, provenance = calibrate(list(found.values()))
    assert 0 < calibration.threshold < 20
    assert provenance["unknown_share"] <= 0.051 and provenance["cells_of_other_types"] == 60


def test_probabilities_follow_the_accuracy() -> None:
    random = np.random.default_rng(1)
    share = random.uniform(0.5, 1, 4000)
    right = random.random(4000) < share**3  # answers that are too confident
    held_out = HeldOut("a", share, random.random(4000), np.ones(4000, bool), right)
    calibration, provenance = calibrate([held_out])
    assert provenance["mean_probability"] == pytest.approx(right.mean(), abs=0.01)
    assert provenance["calibration_error"] < 0.05
    assert calibration.threshold == pytest.approx(0.95, abs=0.02)


def test_all_studies_that_are_left_out_together_are_in_the_table() -> None:
    from scpalm.training.annotation.calibrate import SAME_STUDY

    labels = [cell_type.label for cell_type in cell_type_table().cell_types]
    for prefixes in SAME_STUDY.values():
        for prefix in prefixes:
            assert any(label.startswith(prefix) for label in labels), prefix
