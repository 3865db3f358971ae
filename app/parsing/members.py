"""Members of a body other than cells, checked in the parser process: the service gets arrays and short lists only."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import chain

import numpy as np
from numpy.typing import NDArray

from scpalm.model.errors import OverLimitError, ParameterError

MAX_VALUES = 25_000_000  # of a table: 100 MB in the service
MAX_COLUMNS = 100_000
MAX_ITEMS = 200_000  # of all options, such as names of genes and drugs
MAX_TEXT = 4 << 20  # characters of all options
_NUMBERS = frozenset({int, float, bool, type(None)})


def checked_members(members: Mapping[str, object], tables: Sequence[str], num_cells: int) -> dict[str, object]:
    """The members with every table ``{"genes", "values"}`` as an array ``[cells, genes]``.

    Args:
        members: members of a body, from a reader.
        tables: names of the members that may be tables.
        num_cells: rows of every table.

    Raises:
        OverLimitError: a table has too many values, or the options have too many items.
        ParameterError: a table has another shape, or holds other values than numbers.
    """
    found: dict[str, object] = {}
    options: dict[str, object] = {}
    for name, value in members.items():
        if name in tables and isinstance(value, dict) and {"genes", "values"} <= value.keys():
            found[name] = _table(name, value["genes"], value["values"], num_cells)
        else:
            options[name] = value
    _check_size(options)
    return {**found, **options}


def _check_size(options: Mapping[str, object]) -> None:
    """Raise OverLimitError for more items or text than any request needs."""
    items = text = 0
    for name, value in options.items():
        for leaf in _leaves(value):
            items += 1
            text += len(leaf) if isinstance(leaf, str) else 0
            if items > MAX_ITEMS or text > MAX_TEXT:
                raise OverLimitError(
                    "too-many-options",
                    f"'{name[:50]}' is too long: apart from its cells, a body may have {MAX_ITEMS:,} values and "
                    f"{MAX_TEXT:,} characters in all.",
                    hint="Split it over several requests.",
                    field=name[:50],
                )


def _leaves(value: object) -> Iterator[object]:
    """Everything in a JSON value, including containers and their keys, without recursion."""
    left: list[Iterator[object]] = [iter((value,))]
    while left:
        for item in left[-1]:
            yield item
            if isinstance(item, dict):
                left.append(chain(item.keys(), item.values()))
                break
            if isinstance(item, list):
                left.append(iter(item))
                break
        else:
            left.pop()


def _table(field: str, genes: object, values: object, num_cells: int) -> dict[str, object]:
    shape = f"Send '{field}' as {{'genes': [names], 'values': [[numbers of a cell], ...]}}, one number per gene, null "
    shape += "where unknown."
    if not isinstance(genes, list):
        raise ParameterError(f"'{field}' has no list 'genes'. {shape}", field=field)
    if not all(isinstance(name, str) for name in genes) or len(set(genes)) < len(genes):
        raise ParameterError(f"'{field}' has genes that are not strings, or one twice. {shape}", field=field)
    if len(genes) > MAX_COLUMNS or num_cells * len(genes) > MAX_VALUES or sum(map(len, genes)) > MAX_TEXT:
        raise OverLimitError(
            "table-too-large",
            f"'{field}' has {len(genes):,} columns for {num_cells:,} cells; the limits are {MAX_COLUMNS:,} columns and "
            f"{MAX_VALUES:,} values.",
            hint="Leave out the columns that the model does not read, or send fewer cells at a time.",
            field=field,
        )
    if isinstance(values, np.ndarray):
        table = values.astype(np.float32, copy=False)
    else:
        table = _of_rows(field, values, len(genes), shape)
    if table.shape != (num_cells, len(genes)):
        got = " x ".join(map(str, table.shape))
        raise ParameterError(
            f"'{field}' has values of shape {got} for {num_cells} cells and {len(genes)} genes. {shape}", field=field
        )
    return {"genes": genes, "values": table}


def _of_rows(field: str, rows: object, num_genes: int, shape: str) -> NDArray[np.float32]:
    """The rows as one array, row by row, so that no nested list is held twice. Raises ParameterError."""
    if not isinstance(rows, list):
        raise ParameterError(f"'{field}' has values that are not a table of numbers. {shape}", field=field)
    # The rows are checked first: their number times their length must not be what a client declares.
    for number, row in enumerate(rows):
        if not isinstance(row, list) or not set(map(type, row)) <= _NUMBERS:
            raise ParameterError(
                f"'{field}' has values that are not a table of numbers, from row {number + 1} on. {shape}", field=field
            )
        if len(row) != num_genes:
            raise ParameterError(
                f"'{field}' has {len(row)} values in row {number + 1}, for {num_genes} genes. {shape}", field=field
            )
    table = np.empty((len(rows), num_genes), np.float32)
    try:
        for number, row in enumerate(rows):
            table[number] = np.array(row, dtype=np.float64)
    except OverflowError as error:
        raise ParameterError(f"'{field}' has a number too large for a float. {shape}", field=field) from error
    return table
