from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from scpalm.app.errors import InferenceError, QueueFullError, ServiceError
from scpalm.app.execution.execution import Execution
from scpalm.app.execution.worker import Worker
from scpalm.app.queue.transport import LANES, Turn
from scpalm.app.queue.transports.memory import MemoryTransport
from scpalm.app.storage.memory_budget import MemoryBudget
from scpalm.app.storage.values import ResultSpace, row_blocks
from scpalm.app.telemetry.metrics import Metrics
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.prepare import Prepared
from scpalm.model.genes.report import InputReport
from scpalm.model.genes.rows import Rows
from scpalm.model.tasks.embed import Embed
from scpalm.model.tasks.impute import Impute
from scpalm.model.tasks.pathways import Pathways, PathwayShares
from scpalm.model.tasks.task import BoundTask
from tests.app.fakes import INFO, FakeSession, expected, make_rows

POISON = 250
REPORT = InputReport("counts", "whole numbers")
COVERAGE = Coverage(3, 3, 3, 3, 0, 0)


def part_of(rows: Rows, first: int) -> Prepared:
    names = [f"cell{first + row}" for row in range(len(rows))]
    return Prepared(rows, names, COVERAGE, REPORT, np.full(len(rows), 2e4))


def compute(
    session: FakeSession, folder: Path, parts: list[Prepared], tasks: tuple[BoundTask, ...], **limits: int
) -> tuple[dict[str, np.ndarray], list[str]]:
    transport = MemoryTransport(max_rows=limits.get("max_rows", 10_000), max_bytes=1 << 30)
    space = ResultSpace(folder, MemoryBudget(1 << 30))
    worker = Worker(session, transport, Metrics(["/embed"], ["json"], LANES), batch_rows=8)

    async def go() -> tuple[dict[str, np.ndarray], list[str]]:
        num_cells = limits.get("declared", sum(len(part.rows) for part in parts))
        worker.start()
        try:
            async with asyncio.timeout(30), Execution(transport, tasks, num_cells, Turn("online"), space) as execution:
                for part in parts:
                    await execution.add(part)
                outputs = await execution.outputs()
        finally:
            assert sum(transport.depth().rows.values()) == 0 or not transport.idle
            await asyncio.sleep(0.05)
            assert transport.idle, "the reservation of the request is released"
        values = {output.spec.name: np.concatenate(list(row_blocks(output.values, 5))) for output in outputs}
        return values, execution.cells

    try:
        return asyncio.run(go())
    finally:
        worker.stop()


def parts_of(sizes: list[int], poison: int | None = None) -> list[Prepared]:
    starts = np.cumsum([0, *sizes])
    return [
        part_of(make_rows(size, seed=number, gene=POISON if number == poison else None), int(start))
        for number, (size, start) in enumerate(zip(sizes, starts, strict=False))
    ]


def test_parts_are_combined_in_order(session: FakeSession, tmp_path: Path) -> None:
    parts = parts_of([30, 1, 17])
    values, cells = compute(session, tmp_path, parts, (Embed(INFO), Pathways(INFO), PathwayShares(INFO)))
    np.testing.assert_array_equal(values["embed"], np.concatenate([expected(part.rows) for part in parts]))
    assert cells == [f"cell{n}" for n in range(48)]


def test_several_tasks_need_one_forward_pass(session: FakeSession, tmp_path: Path) -> None:
    impute = Impute.of_genes(np.array([7, 9]), ["A", "B"])
    values, _ = compute(session, tmp_path, parts_of([20]), (Embed(INFO), Pathways(INFO), impute))
    assert sum(map(len, session.calls)) == 20
    np.testing.assert_array_equal(values["impute"], np.array([7, 9]) + 1000.0 * values["pathways"])


def test_counts_are_at_the_cells_own_depth(session: FakeSession, tmp_path: Path) -> None:
    task = Impute.of_genes(np.array([1, 2]), ["A", "B"], "counts")
    parts = [part_of(make_rows(1), 0)]
    values, _ = compute(session, tmp_path, parts, (Pathways(INFO), task))
    if not values["pathways"].any():
        np.testing.assert_allclose(values["impute"], np.expm1([[1.0, 2.0]]) * 2, rtol=1e-6)
    else:
        assert np.isinf(values["impute"]).all()


def test_shares_of_codes_add_up_to_one(session: FakeSession, tmp_path: Path) -> None:
    values, _ = compute(session, tmp_path, parts_of([9]), (PathwayShares(INFO),))
    assert values["pathways"].shape == (9, INFO.num_codes)
    np.testing.assert_array_equal(values["pathways"].sum(axis=1), 1.0)


def test_large_results_are_stored_on_disk_and_read_back(
    session: FakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("scpalm.app.storage.values.IN_MEMORY_BYTES", 100)
    monkeypatch.setattr("scpalm.app.execution.execution._ITEM_BYTES", 60)
    parts = parts_of([30, 13])
    values, _ = compute(session, tmp_path, parts, (Embed(INFO),))
    assert list(tmp_path.glob("values-*.npy"))
    np.testing.assert_array_equal(values["embed"], np.concatenate([expected(part.rows) for part in parts]))


def test_a_failure_in_any_part_fails_the_request_and_leaves_nothing_behind(
    session: FakeSession, tmp_path: Path
) -> None:
    session.poison = POISON
    for poison in range(3):
        with pytest.raises(InferenceError):
            compute(session, tmp_path, parts_of([30, 40, 5], poison), (Embed(INFO),))


def test_more_cells_than_the_queue_accepts_are_refused_at_once(session: FakeSession, tmp_path: Path) -> None:
    async def scenario() -> None:
        transport = MemoryTransport(max_rows=100, max_bytes=1 << 30)
        await transport.admit("first", 80, "bulk")
        with pytest.raises(QueueFullError):
            await transport.admit("second", 21, "online")
        await transport.admit("third", 20, "online")
        await transport.dismiss("first")
        assert transport.depth().rows == {"online": 20, "bulk": 0}
        await transport.dismiss("third")
        assert transport.idle and not session.calls

    asyncio.run(scenario())


def test_fewer_cells_than_declared_are_an_error(session: FakeSession, tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="8 of 10"):
        compute(session, tmp_path, parts_of([8]), (Embed(INFO),), declared=10)
