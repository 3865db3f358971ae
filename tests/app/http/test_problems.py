"""Titles say what a problem is about: the drugs, the file, the labels, or the cells."""

from __future__ import annotations

import pytest

from scpalm.app.http.problems import problem_of_input
from scpalm.model.errors import InputError, OverLimitError, ParameterError, UnreadableError
from scpalm.model.io.other_formats.magic import UNKNOWN, Kind
from scpalm.model.molecules.error import MoleculeError


@pytest.mark.parametrize(
    ("error", "status", "title"),
    [
        (InputError("negative-value", "x", hint="y", field="data"), 422, "These cells cannot be used"),
        (InputError("empty-cell", "x", hint="y"), 422, "These cells cannot be used"),
        (MoleculeError("bad-smiles", "C(", "is no SMILES.", hint="y"), 422, "These drugs cannot be used"),
        (InputError("wrong-type", "x", hint="y", field="mutation"), 422, "This table of mutations cannot be used"),
        (InputError("one-batch", "x", hint="y", field="batch_key"), 422, "These batches cannot be used"),
        (InputError("no-labels", "x", hint="y", field="reference"), 422, "This file of labelled cells cannot be used"),
        (InputError("no-such-layer", "x", hint="y", field="layer"), 422, "There is no such matrix"),
        (InputError("total-needed", "x", hint="y", field="total"), 422, "It is not clear what a cell sums to"),
        (InputError("not-h5ad", "x", hint="y", field="file"), 422, "This file has no cells in a supported format"),
        (UnreadableError("not-hdf5", "x", hint="y", field="file"), 400, "This file cannot be read"),
        (UnreadableError("not-json", "x", hint="y", field="body"), 400, "This body cannot be read"),
        (
            OverLimitError("too-many-cells", "x", hint="y", field="X"),
            413,
            "The request exceeds a limit of this service",
        ),
        (ParameterError("x", field="drugs"), 422, "A parameter is invalid"),
    ],
)
def test_the_title_names_what_is_at_fault(error: InputError, status: int, title: str) -> None:
    problem = problem_of_input(error)
    assert (problem.status, problem.title, problem.field) == (status, title, error.field)


@pytest.mark.parametrize(
    ("kind", "sentence"),
    [
        ("a GCT table", "The file is a GCT table, not an HDF5 file."),
        ("an HDF5 file as base64 text", "The file is an HDF5 file as base64 text."),
        ("a Git LFS pointer, not the file itself", "The file is a Git LFS pointer, not the file itself."),
        ("empty", "The file is empty."),
        (UNKNOWN.name, "The file is in an unknown format, not an HDF5 file."),
    ],
)
def test_a_file_of_another_kind_is_named_once(kind: str, sentence: str) -> None:
    assert Kind(kind, "").instead_of("an HDF5 file") == sentence
