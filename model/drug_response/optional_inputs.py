"""Mutation and methylation from a request body, aligned with the columns that the drug response head reads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from scpalm.model.drug_response.session import DrugResponseSession
from scpalm.model.errors import ParameterError

# The optional inputs, and the value that stands for unknown.
UNKNOWN: dict[str, float] = {"mutation": -1.0, "methylation": float("nan")}


def optional_inputs(
    head: DrugResponseSession, members: Mapping[str, object], num_cells: int
) -> dict[str, NDArray[np.float32]]:
    """``mutation`` and ``methylation`` of a body, each as ``[cells, columns of the head]``.

    In the body, each is ``{"genes", "values": [cells, genes]}``. Columns that the head does not read are dropped.
    Raises ParameterError, which names the field.
    """
    found: dict[str, NDArray[np.float32]] = {}
    for field, unknown in UNKNOWN.items():
        given = members.get(field)
        if given is None:
            continue
        names, values = _matrix(field, given, num_cells)
        position = {name: i for i, name in enumerate(getattr(head, f"{field}_names"))}
        pairs = [(column, position[name]) for column, name in enumerate(names) if name in position]
        if not pairs:
            raise ParameterError(
                f"The model knows none of the {len(names)} columns of '{field}'. It reads {len(position)} others, such "
                f"as {', '.join(list(position)[:3])}.",
                field=field,
            )
        source, target = np.array(pairs).T
        values = np.where(np.isnan(values[:, source]), unknown, values[:, source])
        _check_values(field, values, [names[column] for column in source])
        table = np.full((num_cells, len(position)), unknown, dtype=np.float32)
        table[:, target] = values
        found[field] = table
    if "methylation" in found and "mutation" not in found:
        raise ParameterError(
            "Methylation needs mutation calls. Send both (null for unknown calls), or neither.",
            field="mutation",
        )
    return found


def _check_values(field: str, values: NDArray[np.float32], names: Sequence[str]) -> None:
    """Raise ParameterError for the first invalid value of ``values [cells, names]``."""
    if field == "mutation":
        valid, allowed = np.isin(values, (-1, 0, 1)), "1 (mutated), 0 (not mutated), or null or -1 (unknown)"
    else:
        valid, allowed = np.isnan(values) | ((values >= 0) & (values <= 1)), "a fraction from 0 to 1, or null"
    if not valid.all():
        cell, column = (int(at[0]) for at in np.nonzero(~valid))
        raise ParameterError(
            f"'{field}' of cell number {cell + 1}, '{names[column][:100]}', is {values[cell, column]:g}; "
            f"it must be {allowed}.",
            field=field,
        )


def _matrix(field: str, given: object, num_cells: int) -> tuple[list[str], NDArray[np.float32]]:
    shape = (
        f"Send '{field}' as {{'genes': [names], 'values': [[numbers of a cell], ...]}}, one number per gene, null "
        "where unknown."
    )
    if not isinstance(given, dict) or not isinstance(given.get("genes"), list):
        raise ParameterError(f"'{field}' has no list 'genes'. {shape}", field=field)
    names = given["genes"]
    if not all(isinstance(name, str) for name in names) or len(set(names)) < len(names):
        raise ParameterError(f"'{field}' has genes that are not strings, or one twice. {shape}", field=field)
    try:
        values = np.array(given.get("values"), dtype=np.float32)
    except (TypeError, ValueError, OverflowError) as error:
        raise ParameterError(f"'{field}' has values that are not a table of numbers. {shape}", field=field) from error
    if values.shape != (num_cells, len(names)):
        got = " x ".join(map(str, values.shape))
        raise ParameterError(
            f"'{field}' has values of shape {got} for {num_cells} cells and {len(names)} genes. {shape}", field=field
        )
    return names, values
