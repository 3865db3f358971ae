"""Heads of the shipped size give the same bits for any number of threads, alone and among other cells."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scpalm.model.bundle import DEFAULT_BUNDLE
from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.folded import FoldedMembers, shapes
from scpalm.model.drug_response.kernel.head import kernel
from scpalm.model.drug_response.kernel.products import fixed_product
from scpalm.model.drug_response.kernel.profile import FactorModel, ProfileMap

PARTS = ((0, 1), (3, 4), (5, 38), (69, 70))


def test_bits_of_networks_depend_neither_on_threads_nor_on_other_cells() -> None:
    random = np.random.default_rng(0)
    config = DrugResponseConfig(793, graph_widths=(128, 128, 128, 100))
    tensors = {name: random.normal(0, 0.1, (5, *shape)).astype(np.float32) for name, shape in shapes(config).items()}
    members = FoldedMembers(config, tensors)
    features = random.normal(size=(70, config.cell_width)).astype(np.float32)
    table = DrugTable.load(DEFAULT_BUNDLE / "drugs.parquet")
    cells, drugs = [], []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            cells.append(members.cell_units([features]))
            drugs.append(np.stack([members.drug_units(drug.graph) for drug in table.drugs]))
    for other in (1, 2):
        np.testing.assert_array_equal(cells[other], cells[0])
        np.testing.assert_array_equal(drugs[other], drugs[0])
    for start, stop in PARTS:
        np.testing.assert_array_equal(members.cell_units([features[start:stop]]), cells[0][:, start:stop])


def test_bits_of_a_kernel_head_depend_neither_on_threads_nor_on_other_cells() -> None:
    random = np.random.default_rng(1)
    lines, genes, drugs, factors = 561, 697, 223, 40
    expression = random.gamma(2, 1.5, (lines, genes)).astype(np.float32)
    loading = random.normal(0, 0.3, (genes, factors)).astype(np.float32)
    parts = expression.mean(axis=0), expression.std(axis=0), loading, random.uniform(0.1, 1, genes).astype(np.float32)
    weights = random.normal(size=(lines, drugs)).astype(np.float32)
    profiles = random.gamma(2, 1.5, (70, genes)).astype(np.float32)
    profiles[40:, ::3] = np.nan  # another set of measured genes

    def predicted(cells: slice) -> list[np.ndarray]:
        # A new map each time: what it caches must not depend on threads either.
        whole = ProfileMap(expression, FactorModel(*parts), np.ones(genes, np.float32))
        mapped = whole.map(profiles[cells])
        return [fixed_product(kernel(mapped.features, whole.features), weights), mapped.distance, mapped.noise]

    found = []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            found.append(predicted(slice(None)))
    for other in found[1:]:
        for one, two in zip(other, found[0], strict=True):
            np.testing.assert_array_equal(one, two)
    for start, stop in PARTS:
        for one, two in zip(predicted(slice(start, stop)), found[0], strict=True):
            np.testing.assert_array_equal(one, two[start:stop])
