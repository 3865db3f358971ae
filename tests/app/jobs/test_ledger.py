from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from app.jobs.ledger import Ledger


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "jobs.sqlite")
    yield ledger
    ledger.close()


def test_jobs_run_in_order_and_once(ledger: Ledger) -> None:
    for name in ("a", "b"):
        ledger.add(name, "", name, None, "{}")
    first, second = ledger.take(), ledger.take()
    assert first is not None and second is not None and ledger.take() is None
    assert [first.id, second.id] == ["a", "b"] and first.attempt == 1
    assert ledger.end(first, "succeeded") and not ledger.end(first, "failed", "late")
    assert ledger.counts() == {"queued": 0, "running": 1, "succeeded": 1, "failed": 0, "cancelled": 0}


def test_a_stale_attempt_can_neither_commit_nor_end(ledger: Ledger) -> None:
    ledger.add("a", "", "a", None, "{}")
    stale = ledger.take()
    assert stale is not None and ledger.commit_chunk(stale, 0, 10)
    assert not ledger.commit_chunk(stale, 0, 10), "a chunk is committed once"
    assert ledger.requeue_running() == 1
    fresh = ledger.take()
    assert fresh is not None and fresh.attempt == 2 and fresh.rows_done == 10
    assert not ledger.commit_chunk(stale, 1, 10) and not ledger.end(stale, "failed")
    assert ledger.commit_chunk(fresh, 1, 5) and ledger.chunks(fresh) == {0, 1}
    job = ledger.get("a")
    assert job is not None and job.rows_done == 15


def test_what_was_committed_survives(tmp_path: Path) -> None:
    first = Ledger(tmp_path / "jobs.sqlite")
    first.add("a", "owner", "a", "key", "{}")
    job = first.take()
    assert job is not None
    first.commit_chunk(job, 0, 7)
    # Not closed: as after a kill.
    second = Ledger(tmp_path / "jobs.sqlite")
    again = second.get("a", "owner")
    assert again is not None and again.rows_done == 7 and again.state == "running"
    assert second.get("a", "somebody else") is None
    first.close()
    second.close()


def test_failed_and_cancelled_jobs_do_not_stand_in_the_way(ledger: Ledger) -> None:
    ledger.add("a", "", "same", None, "{}")
    assert ledger.add("b", "", "same", None, "{}").id == "a"
    assert ledger.add("c", "other", "same", None, "{}").id == "c", "owners do not share"
    job = ledger.take()
    assert job is not None and ledger.end(job, "failed", "why")
    assert ledger.add("d", "", "same", None, "{}").id == "d"


def test_old_jobs_are_forgotten_with_their_chunks(ledger: Ledger) -> None:
    ledger.add("a", "", "a", None, "{}")
    job = ledger.take()
    assert job is not None
    ledger.commit_chunk(job, 0, 1)
    assert ledger.expire(time.time() + 1) == [], "open jobs do not expire"
    ledger.end(job, "succeeded")
    assert ledger.expire(time.time() + 1) == ["a"] and ledger.get("a") is None and ledger.chunks(job) == set()
