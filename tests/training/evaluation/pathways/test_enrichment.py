from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
from scipy import sparse
from scipy.stats import hypergeom

from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.training.evaluation.pathways.cells import PathwayCells, draw_heatmap, label_shares, read_pathway_cells
from scpalm.training.evaluation.pathways.enrichment import (
    associate,
    co_occurrence,
    code_pathways,
    code_shares,
    pathway_rows,
    pathways_document,
)
from scpalm.training.evaluation.pathways.gene_sets import adjusted, over, over_representation, read_gmt
from tests.training.bundles import Exported

SYMBOLS = [f"GENE{i}" for i in range(120)]
SETS = {f"program {k}": SYMBOLS[k * 12 : k * 12 + 12] for k in range(4)} | {"elsewhere": SYMBOLS[60:80]}


def planted(cells: int = 200, seed: int = 0) -> PathwayCells:
    """Code k is used by cells that express the genes of program k."""
    rng = np.random.default_rng(seed)
    kind = rng.integers(4, size=cells)
    values = rng.random((cells, 120)) * (rng.random((cells, 120)) < 0.4)
    for k in range(4):
        values[np.ix_(kind == k, range(k * 12, k * 12 + 12))] += 2
    codes = np.where(rng.random((cells, 8)) < 0.6, kind[:, None], rng.integers(4, size=(cells, 8)))
    return PathwayCells(codes.astype(np.int32), sparse.csr_matrix(values), np.array([f"t{k}" for k in kind]), SYMBOLS)


@pytest.mark.parametrize("method", ["scpalm", "scpalm_correlation"])
def test_planted_programs_are_found(method: str) -> None:
    found = code_pathways(planted(), 5, SETS, permutations=5)[method]
    for code in range(4):
        best = int(found.adjusted[code].argmin())
        assert found.terms[best] == f"program {code}" and found.overlap[code, best] >= 8
    # Code 4 is never used: it has no terms.
    assert (found.adjusted[4] == 1).all() and (found.overlap[4] == 0).all()
    assert found.hits == 4 > np.mean(found.null_hits)
    (row,) = pathway_rows("planted", 200, {"scpalm": found}, 0)
    assert row["hits"] == 4 and row["permutations"] == 5
    document = pathways_document({"scpalm": found}, SYMBOLS, [row], ["made"])
    codes = document["codes"]
    assert isinstance(codes, list) and codes[0]["terms"][0]["term"] == "program 0" and len(codes[0]["genes"]) == 10


def test_uninformative_codes_score_like_their_permutations() -> None:
    cells = planted()
    shuffled = np.random.default_rng(7).permuted(cells.values.toarray(), axis=0)  # each gene separately
    noise = PathwayCells(cells.codes, sparse.csr_matrix(shuffled), cells.labels, SYMBOLS)
    for found in code_pathways(noise, 5, SETS, permutations=5).values():
        assert found.hits <= 1 and max(found.null_hits) <= 1


def test_the_association_equals_the_definition_of_the_paper() -> None:
    cells = planted(30)
    x, literal = cells.values.toarray(), np.zeros((5, 120))
    for cell in range(30):
        for code in np.unique(cells.codes[cell]):
            literal[code] += x[cell] * np.sum(cells.codes[cell] == code) / 8
    literal /= np.maximum(literal.sum(axis=0), 1e-300)
    share = code_shares(cells.codes, 5)
    product = co_occurrence(share, cells.values)
    np.testing.assert_allclose(associate(product, share, cells.values, "share"), literal, atol=1e-6)
    r = associate(product, share, cells.values, "correlation")
    assert r[1, 14] == pytest.approx(np.corrcoef(share[:, 1], x[:, 14])[0, 1], rel=1e-4)


def test_rare_genes_are_ignored() -> None:
    cells = planted()
    values = cells.values.tolil()
    values[:, 119] = 0
    values[:5, 119] = 9.0
    rare = PathwayCells(cells.codes, sparse.csr_matrix(values), cells.labels, SYMBOLS)
    assert 119 not in code_pathways(rare, 4, SETS, permutations=0)["scpalm"].genes
    few = PathwayCells(cells.codes[:20], cells.values[:20], cells.labels[:20], SYMBOLS)
    with pytest.raises(InputError, match="30 cells or more"):
        code_pathways(few, 4, SETS)


def test_over_representation_is_the_hypergeometric_tail() -> None:
    sets = over(SYMBOLS, SETS)
    lists = np.array([[0, 1, 2, 60], [61, 62, 63, 64]])
    overlap, p = over_representation(lists, sets)
    np.testing.assert_array_equal(overlap[:, [0, 4]], [[3, 1], [0, 4]])
    assert p[0, 0] == pytest.approx(hypergeom.sf(2, 120, 12, 4))
    assert p[1, 0] == 1.0
    np.testing.assert_allclose(adjusted(np.array([[0.01, 0.04], [0.03, 0.5]])), [[0.04, 0.16 / 3], [0.16 / 3, 0.5]])


@pytest.mark.skipif(importlib.util.find_spec("gseapy") is None, reason="gseapy is not installed")
def test_over_representation_agrees_with_gseapy() -> None:
    gseapy = importlib.import_module("gseapy")
    chosen = np.array([[0, 1, 2, 3, 4, 13, 14, 60, 61, 100]])
    result = gseapy.enrich(
        gene_list=[SYMBOLS[i] for i in chosen[0]], gene_sets=SETS, background=SYMBOLS, outdir=None, no_plot=True
    ).results.set_index("Term")
    sets = over(SYMBOLS, SETS)
    p = dict(zip(sets.names, over_representation(chosen, sets)[1][0], strict=True))
    assert len(result) == 3
    for term, value in result["P-value"].items():
        assert p[str(term)] == pytest.approx(float(value), rel=1e-6)


def test_gmt_files(tmp_path: Path) -> None:
    path = tmp_path / "sets.gmt"
    path.write_text("A\tlink\tG1\tG2\n\nB\t\tG3\n")
    assert read_gmt(path) == {"A": ["G1", "G2"], "B": ["G3"]}
    path.write_text("A\tlink\tG1\nnonsense\n")
    with pytest.raises(InputError, match="line 2"):
        read_gmt(path)
    with pytest.raises(InputError, match="no file"):
        read_gmt(tmp_path / "absent.gmt")


def test_cells_of_a_corpus_and_a_picture(tiny_export: Exported, tmp_path: Path) -> None:
    cells = read_pathway_cells(Bundle.load(tiny_export.bundle), [tiny_export.corpus], "cell_type")
    assert len(cells) == 300 and cells.codes.shape == (300, 8) and cells.values.shape == (300, 120)
    names, shares = label_shares(cells.codes, np.array(["a", "b", ""] * 100), 16)
    assert names == ["a", "b"]
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    draw_heatmap(names, shares, tmp_path / "codes.png")
    assert (tmp_path / "codes.png").stat().st_size > 1000
