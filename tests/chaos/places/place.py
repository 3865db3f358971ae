"""The table of places and faults, and what its rows share."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import anndata
import httpx
import numpy as np
from scipy import sparse

from scpalm.model.bundle import Bundle
from tests.chaos.site import Site
from tests.e2e.conftest import BUNDLE


@dataclass(frozen=True)
class Seen:
    """A row of the table.

    Attributes:
        client: what the client saw.
        left: what was left afterwards.
    """

    client: str
    left: str


Place = Callable[[Site], Seen]
H5AD = "application/x-hdf5"
PLACES: dict[tuple[str, str], Place] = {}
NOTHING = "nothing"


def place(where: str, fault: str) -> Callable[[Place], Place]:
    """Register a row of the table."""

    def add(function: Place) -> Place:
        PLACES[where, fault] = function
        return function

    return add


def problem_of(answer: httpx.Response, status: int, words: str = "") -> str:
    """Status and kind of a problem, which is checked."""
    assert answer.status_code == status, answer.text
    problem = answer.json()
    assert answer.headers["content-type"] == "application/problem+json" and words in problem["detail"], problem
    return f"{status} {problem['type'].rpartition(':')[2]}"


def h5ad(number: int) -> bytes:
    """An h5ad file of seeded counts, some megabytes for 500 cells."""
    genes = Bundle.load(BUNDLE).vocabulary.symbols[:2000]
    data = anndata.AnnData(sparse.csr_matrix(np.random.default_rng(0).poisson(0.5, (number, len(genes))), dtype="f4"))
    data.obs_names, data.var_names = [f"cell{n}" for n in range(number)], genes
    with tempfile.TemporaryDirectory() as folder:
        data.write_h5ad(Path(folder) / "cells.h5ad")
        return (Path(folder) / "cells.h5ad").read_bytes()
