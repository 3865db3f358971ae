"""The packaged members give the same bits for any number of threads and in any company."""

from __future__ import annotations

import numpy as np
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import drug_response_of


def test_bits_depend_neither_on_threads_nor_on_other_cells() -> None:
    head = drug_response_of(Bundle.load())
    members = head._heads["expression"].members
    features = np.random.default_rng(0).normal(size=(70, members.config.cell_width)).astype(np.float32)
    cells, drugs = [], []
    for threads in (1, 2, 3):
        with threadpool_limits(threads, user_api="blas"):
            cells.append(members.cell_units([features]))
            drugs.append(np.stack([members.drug_units(drug.graph) for drug in head.drugs.drugs]))
    for other in (1, 2):
        np.testing.assert_array_equal(cells[other], cells[0])
        np.testing.assert_array_equal(drugs[other], drugs[0])
    for start, stop in ((0, 1), (3, 4), (5, 38), (69, 70)):
        np.testing.assert_array_equal(members.cell_units([features[start:stop]]), cells[0][:, start:stop])
