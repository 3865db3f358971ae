"""The job ledger in Redis, shared by many processes. Each may take any job and continue the jobs of dead processes."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar, cast
from uuid import uuid4

from redis.exceptions import RedisError

from scpalm.app.jobs.ledger import redis_scripts as scripts
from scpalm.app.jobs.ledger.ledger import (
    DIED,
    MAX_DEATHS,
    STATES,
    Job,
    LedgerVersionError,
    State,
    Submission,
    key_is_taken,
)
from scpalm.app.queue.redis.lease_scripts import GROUP, pause_ms
from scpalm.app.queue.transport import RENEWALS_PER_LEASE
from scpalm.app.storage.redis import as_service_error, connect_async

T = TypeVar("T")

PREFIX = "scpalm:{jobs}:"
_SCRIPTS = ("CHECK_VERSION", "FIND", "ADD", "TAKE", "RENEW", "SET_ROWS", "COMMIT", "END", "CANCEL", "REPLAY", "FORGET")


class RedisLedger:
    """See `scpalm.app.jobs.ledger.ledger.Ledger`. Used from one event loop. Raises QueueError for a malformed URL."""

    def __init__(self, url: str, *, lease_seconds: float) -> None:
        self._client: Any = connect_async(url)
        self._holder = f"runner-{uuid4().hex[:16]}"
        self._lease_ms = int(1000 * lease_seconds)
        self._pause_ms = pause_ms(lease_seconds)
        self._scripts = {name: self._client.register_script(getattr(scripts, name)) for name in _SCRIPTS}
        self._is_checked = False
        self._models: set[str] = set()  # checksums of the models whose jobs this process has requested

    async def close(self) -> None:
        with contextlib.suppress(RedisError, OSError):
            for model in self._models:
                stream = f"{PREFIX}running:{model}"
                # Removing a consumer would also remove its leases, so keep one that still has leases.
                if not await self._client.xpending_range(stream, GROUP, "-", "+", 1, consumername=self._holder):
                    await self._client.xgroup_delconsumer(stream, GROUP, self._holder)
        await self._client.aclose()

    async def find(self, submission: Submission) -> Job | None:
        found = _id_in(await self._run("FIND", _arguments(submission)))
        return await self.get(found) if found else None

    async def add(self, job_id: str, submission: Submission, manifest: str, model: str) -> Job:
        while True:
            arguments = [*_arguments(submission), job_id, manifest, model, submission.owner]
            job = await self.get(_id_in(await self._run("ADD", arguments)))
            if job is not None:
                return job
            # An expired job was forgotten between the two commands.

    async def get(self, job_id: str, owner: str | None = None) -> Job | None:
        fields = await self._ask(lambda: self._client.hgetall(f"{PREFIX}job:{job_id}"))
        job = _job(fields) if fields else None
        return job if job is not None and owner in (None, job.owner) else None

    async def latest(self, owner: str | None = None, limit: int = 100) -> list[Job]:
        return await self._jobs_in("all" if owner is None else f"of:{_safe(owner)}", limit)

    async def dead(self, limit: int = 100) -> list[Job]:
        return await self._jobs_in("dead", limit)

    async def _jobs_in(self, name: str, limit: int) -> list[Job]:
        ids = await self._ask(lambda: self._client.zrevrange(f"{PREFIX}{name}", 0, limit - 1))
        jobs = [await self.get(job_id.decode()) for job_id in ids]
        return [job for job in jobs if job is not None]

    async def counts(self) -> dict[State, int]:
        queued = await self._ask(lambda: self._client.zcard(f"{PREFIX}queued"))
        others = await self._ask(lambda: self._client.hgetall(f"{PREFIX}counts"))
        found = {name.decode(): int(count) for name, count in others.items()} | {"queued": queued}
        return {state: int(found.get(state, 0)) for state in STATES}

    async def take(self, models: Sequence[str]) -> Job | None:
        self._models.update(models)
        job_id = await self._run("TAKE", [self._holder, self._lease_ms, MAX_DEATHS, DIED, self._pause_ms, *models])
        return await self.get(job_id.decode()) if job_id else None

    async def renew(self, job: Job) -> bool:
        idle_ms = self._lease_ms // (2 * RENEWALS_PER_LEASE)
        return bool(await self._run("RENEW", [job.id, job.attempt, self._holder, idle_ms, self._pause_ms]))

    async def set_rows(self, job: Job, rows: int) -> None:
        await self._run("SET_ROWS", [job.id, job.attempt, rows])

    async def commit_chunk(self, job: Job, number: int, rows: int) -> bool:
        return bool(await self._run("COMMIT", [job.id, job.attempt, number, rows, self._holder]))

    async def chunks(self, job: Job) -> set[int]:
        return {int(number) for number in await self._ask(lambda: self._client.smembers(f"{PREFIX}chunks:{job.id}"))}

    async def end(self, job: Job, state: State, error: str | None = None) -> bool:
        return bool(await self._run("END", [job.id, job.attempt, state, error or ""]))

    async def cancel(self, job_id: str) -> bool:
        return bool(await self._run("CANCEL", [job_id]))

    async def replay(self, job_id: str) -> bool:
        return bool(await self._run("REPLAY", [job_id]))

    async def expired(self, before: float) -> list[str]:
        ids = await self._ask(lambda: self._client.zrangebyscore(f"{PREFIX}ended", "-inf", int(1000 * before)))
        return [job_id.decode() for job_id in ids]

    async def forget(self, job_id: str) -> None:
        await self._run("FORGET", [job_id])

    async def _run(self, name: str, arguments: Sequence[str | int]) -> Any:
        return await self._ask(lambda: self._call(name, arguments))

    def _call(self, name: str, arguments: Sequence[str | int]) -> Awaitable[Any]:
        script: Awaitable[Any] = self._scripts[name](keys=[PREFIX], args=list(arguments))
        return script

    async def _ask(self, command: Callable[[], Awaitable[Any]]) -> Any:
        try:
            if not self._is_checked:
                self._check_version(await self._call("CHECK_VERSION", [scripts.VERSION]))
            return await command()
        except (RedisError, OSError) as error:
            raise as_service_error(error) from error

    def _check_version(self, found: bytes) -> None:
        if found != str(scripts.VERSION).encode():
            version = found[:20].decode(errors="replace")
            raise LedgerVersionError(
                f"The job ledger in Redis has version {version!r}; this release reads up to {scripts.VERSION}. "
                "Update all processes, or use another Redis database.",
                retry_after=5,
            )
        self._is_checked = True


def _arguments(submission: Submission) -> list[str]:
    owner, key = _safe(submission.owner), _safe(submission.key or "")
    return [owner, submission.fingerprint, submission.request, key]


def _id_in(answer: tuple[bytes, int]) -> str:
    """The id of a job, or "". Raises IdempotencyError."""
    if answer[1]:
        raise key_is_taken()
    return answer[0].decode()


def _safe(name: str) -> str:
    """Hash user-supplied text for use in a Redis key; "" stays ""."""
    return hashlib.sha256(name.encode()).hexdigest() if name else ""


def _job(fields: dict[bytes, bytes]) -> Job:
    text = {name.decode(): value.decode() for name, value in fields.items()}

    def moment(name: str) -> float | None:
        return float(text[name]) / 1000 if name in text else None

    return Job(
        text["id"],
        text["name"],
        text["fingerprint"],
        text["manifest"],
        cast(State, text["state"]),
        int(text["attempt"]),
        int(text["rows"]) if "rows" in text else None,
        int(text["rows_done"]),
        text.get("error") or None,
        moment("created") or 0.0,
        moment("started"),
        moment("ended"),
        text["model"],
        int(text["deaths"]),
    )
