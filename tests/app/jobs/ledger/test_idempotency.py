"""What an idempotency key promises, in every ledger."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from scpalm.app.errors import IdempotencyError
from scpalm.app.jobs.ledger.ledger import Ledger, State, Submission
from scpalm.app.jobs.ledger.sqlite import SqliteLedger
from tests.app.jobs.ledger.ledgers import Scenario, take


def sent(body: str, key: str | None = None, *, model: str = "m", owner: str = "") -> Submission:
    """A request with this body, for the model served at the time."""
    return Submission(owner, f"{body} by {model}", body, key)


async def accept(ledger: Ledger, name: str, submission: Submission) -> str:
    """The id of the job for a request: the known one, or else a new one with this name."""
    found = await ledger.find(submission)
    added = await ledger.add(name, submission, "{}", "m")
    assert found is None or found.id == added.id, "both must look in the same way"
    return added.id


def test_a_key_stands_for_one_body(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        assert await accept(ledger, "a", sent("cells", "k")) == "a"
        assert await accept(ledger, "b", sent("cells", "k")) == "a"
        for attempt in (ledger.find(sent("others", "k")), ledger.add("c", sent("others", "k"), "{}", "m")):
            with pytest.raises(IdempotencyError, match="Use a new key"):
                await attempt
        assert await ledger.get("c") is None
        assert await accept(ledger, "d", sent("others", "k", owner="somebody")) == "d", "owners do not share keys"

    check(scenario)


def test_a_second_key_for_the_same_body_stands_for_the_same_job(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        assert await accept(ledger, "a", sent("cells", "k1")) == "a"
        assert (await ledger.find(sent("cells", "k2"))) is not None, "looking is enough to record a key"
        with pytest.raises(IdempotencyError):
            await ledger.find(sent("others", "k2"))
        assert await accept(ledger, "b", sent("cells")) == "a"

    check(scenario)


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_key_whose_job_failed_starts_a_new_job(check: Callable[[Scenario], None], end: State) -> None:
    async def scenario(ledger: Ledger) -> None:
        await accept(ledger, "a", sent("cells", "k"))
        assert await ledger.end(await take(ledger), end, "why")
        assert await ledger.find(sent("cells", "k")) is None
        assert await accept(ledger, "b", sent("cells", "k")) == "b"
        assert await accept(ledger, "c", sent("cells", "k")) == "b"

    check(scenario)


def test_a_key_gives_its_job_after_the_model_was_replaced(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await accept(ledger, "a", sent("cells", "k", model="old"))
        assert await accept(ledger, "b", sent("cells", "k", model="new")) == "a"
        assert await accept(ledger, "c", sent("cells", "other", model="new")) == "c"

    check(scenario)


def test_keys_end_with_their_job(check: Callable[[Scenario], None]) -> None:
    async def scenario(ledger: Ledger) -> None:
        await accept(ledger, "a", sent("cells", "k1"))
        await accept(ledger, "b", sent("cells", "k2"))
        await ledger.end(await take(ledger), "succeeded")
        assert await ledger.expired(time.time() + 1) == ["a"]
        await ledger.forget("a")
        assert await accept(ledger, "c", sent("others", "k1")) == "c"
        assert await accept(ledger, "d", sent("more", "k2")) == "d"

    check(scenario)


def test_adding_a_job_twice_is_adding_it_once(check: Callable[[Scenario], None]) -> None:
    """A reply of Redis may be lost, so the command is repeated."""

    async def scenario(ledger: Ledger) -> None:
        for _ in range(2):
            assert (await ledger.add("a", sent("cells", "k"), "{}", "m")).id == "a"
        assert (await ledger.counts())["queued"] == 1

    check(scenario)


def test_keys_of_the_previous_release_are_kept(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "jobs.sqlite")
    database.execute(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, owner TEXT NOT NULL, fingerprint TEXT NOT NULL, idempotency_key TEXT, "
        "manifest TEXT NOT NULL, model TEXT NOT NULL DEFAULT '', deaths INTEGER NOT NULL DEFAULT 0, "
        "state TEXT NOT NULL, attempt INTEGER NOT NULL DEFAULT 0, rows INTEGER, rows_done INTEGER NOT NULL DEFAULT 0, "
        "error TEXT, created REAL NOT NULL, started REAL, ended REAL, UNIQUE (owner, idempotency_key))"
    )
    database.execute(
        "INSERT INTO jobs (id, owner, fingerprint, idempotency_key, manifest, state, created) "
        "VALUES ('a', '', 'cells by m', 'k', '{}', 'queued', 1)"
    )
    database.execute("PRAGMA user_version = 1")
    database.commit()
    database.close()

    async def scenario() -> None:
        for _ in range(2):  # also when it is opened again
            ledger = SqliteLedger(tmp_path / "jobs.sqlite")
            assert await accept(ledger, "b", sent("cells", "k")) == "a"
            with pytest.raises(IdempotencyError):
                await ledger.find(sent("others", "k"))
            await ledger.close()

    asyncio.run(scenario())
