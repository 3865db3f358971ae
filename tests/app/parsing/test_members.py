"""What a body holds in addition to cells is checked where it is parsed; the service gets arrays and short lists."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Callable

import numpy as np
import orjson
import pytest

from scpalm.app.parsing import members as module
from scpalm.app.parsing.members import checked_members
from scpalm.model.errors import OverLimitError, ParameterError
from tests.app.fakes import Client
from tests.loop_lag import LoopLag

GENES = ["TP53", "KRAS"]
TABLES = ("mutation", "methylation")


def checked(**members: object) -> dict[str, object]:
    return checked_members(members, TABLES, 2)


@pytest.mark.parametrize("values", [[[1, None], [0, 1]], np.array([[1, np.nan], [0, 1]])])
def test_a_table_becomes_an_array(values: object) -> None:
    found = checked(mutation={"genes": GENES, "values": values}, drugs=["urea", 2244])
    table = found["mutation"]
    assert isinstance(table, dict) and table["genes"] == GENES
    assert table["values"].dtype == np.float32
    np.testing.assert_array_equal(table["values"], np.array([[1, np.nan], [0, 1]], np.float32))
    assert found["drugs"] == ["urea", 2244]


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ({"genes": GENES, "values": [[1, 0]]}, "shape 1 x 2 for 2 cells"),
        ({"genes": GENES, "values": [[1, 0], [1]]}, "1 values in row 2, for 2 genes"),
        ({"genes": GENES, "values": [[1, 0], [1, [0]]]}, "from row 2 on"),
        ({"genes": GENES, "values": [[1, 0], [1, "0"]]}, "from row 2 on"),
        ({"genes": GENES, "values": {"0": 1}}, "not a table"),
        ({"genes": GENES, "values": [[1, 10**400], [0, 0]]}, "too large"),
        ({"genes": GENES, "values": np.zeros((3, 2))}, "shape 3 x 2"),
        ({"genes": "TP53", "values": []}, "no list 'genes'"),
        ({"genes": [["TP53"]], "values": []}, "not strings"),
    ],
)
def test_a_table_of_another_shape_is_refused(table: object, words: str) -> None:
    with pytest.raises(ParameterError, match=words) as caught:
        checked(mutation=table)
    assert caught.value.field == "mutation"


def test_a_table_is_limited_by_what_it_declares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_VALUES", 3)
    with pytest.raises(OverLimitError, match="2 columns for 2 cells"):
        checked(mutation={"genes": GENES, "values": []})


def deep(levels: int) -> list[object]:
    value: list[object] = []
    for _ in range(levels):
        value = [value]
    return value


@pytest.mark.parametrize(
    "value", [["x"] * 50, {"a": [1] * 50}, deep(50), "x" * 60, [["x" * 30], ["y" * 31]], {"x" * 60: 1}]
)
def test_options_are_limited_in_items_and_text(value: object, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "MAX_ITEMS", 20)
    monkeypatch.setattr(module, "MAX_TEXT", 59)
    with pytest.raises(OverLimitError, match="'drugs' is too long"):
        checked(drugs=value)
    with pytest.raises(OverLimitError, match="too long"):
        checked(mutation=value)  # it is no table either


CELLS = {"genes": [f"GENE{n}" for n in range(12)], "indptr": [0, 2, 4], "indices": [0, 1, 2, 3], "data": [1, 2, 3, 4]}
MANY = 4_000_000


@pytest.mark.parametrize(
    "members",
    [
        {"mutation": {"genes": ["TP53"], "values": [[0] * MANY, [0] * MANY]}},
        {"mutation": {"genes": ["TP53"], "values": [[[0] * MANY], [0]]}},
        {"mutation": {"values": [[0] * MANY, [0] * MANY]}},
        {"methylation": [[0] * MANY, [0] * MANY]},
        {"drugs": ["C"] * MANY},
    ],
)
@pytest.mark.parametrize("prefer", ["", "respond-async"])
def test_a_small_body_that_unpacks_to_much_does_not_stop_the_service(
    client: Client,
    members: dict[str, object],
    prefer: str,
    watch_loop: Callable[[asyncio.AbstractEventLoop], LoopLag],
) -> None:
    body = gzip.compress(orjson.dumps(CELLS | members), 1)
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip", "Prefer": prefer}
    watch_loop(client.loop)
    answer = client.post("/ic50", content=body, headers=headers)
    # The model of these tests has no drug response (404): a body that reached it was not refused by the parser.
    assert answer.status_code in (413, 422), answer.text
    assert answer.json()["field"] == next(iter(members))
