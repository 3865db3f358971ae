"""What a parser process sends is checked against the model and the limits, not only against itself."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import sparse

from scpalm.app.parsing.messages import Message, MessageError
from scpalm.app.parsing.upload import UploadHead
from scpalm.app.parsing.wire import PartReader, pack_part
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from tests.app.fakes import make_vocabulary

VOCABULARY = make_vocabulary()
NUM_GENES = len(VOCABULARY)
COUNTS = sparse.csr_matrix(np.random.default_rng(0).poisson(1.0, (5, NUM_GENES)).astype(np.float32))
CELLS = prepare(
    CellMatrix(
        COUNTS.indptr.astype(np.int64),
        COUNTS.indices.astype(np.int32),
        COUNTS.data,
        genes=VOCABULARY.symbols,
        cells=[f"cell{number}" for number in range(5)],
    ),
    VOCABULARY,
)
NUM_CELLS = len(CELLS.rows)
HEAD = UploadHead(NUM_CELLS, CELLS.coverage, np.zeros(3, np.int32), {})
MEASURED = CELLS.rows.gene_sets[0].measured


def head(**changes: object) -> Message:
    return pack_part(replace(HEAD, **changes), MEASURED, None)  # type: ignore[arg-type]


def test_a_valid_upload_is_read() -> None:
    reader = PartReader(NUM_GENES, NUM_CELLS)
    opened, cells = reader.read(pack_part(HEAD, MEASURED, CELLS))
    assert isinstance(opened, UploadHead) and opened.num_cells == NUM_CELLS
    assert len(cells.rows) == NUM_CELLS  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "message",
    [
        head(num_cells=-1),
        head(num_cells=NUM_CELLS + 1),
        head(columns=np.array([NUM_GENES], np.int32)),
        head(columns=np.array([-2], np.int32)),
        pack_part(HEAD, np.ones(NUM_GENES + 1, bool), None),
        head(coverage=replace(HEAD.coverage, genes_in="many")),  # type: ignore[arg-type]
    ],
    ids=["negative cells", "cells over the limit", "column", "negative column", "genes", "type"],
)
def test_a_head_that_does_not_fit_the_model_is_refused(message: Message) -> None:
    with pytest.raises(MessageError):
        PartReader(NUM_GENES, NUM_CELLS).read(message)


def test_a_second_head_and_surplus_cells_are_refused() -> None:
    reader = PartReader(NUM_GENES, None)
    reader.read(pack_part(HEAD, MEASURED, CELLS))
    with pytest.raises(MessageError, match="two heads"):
        reader.read(head())
    with pytest.raises(MessageError, match="more cells"):
        reader.read(pack_part(None, None, CELLS))
