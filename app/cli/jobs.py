"""The command ``scpalm jobs``: list jobs and dead letters, replay failed jobs, cancel open ones."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.model.errors import UserError

if TYPE_CHECKING:
    from scpalm.app.jobs.dead_letters import DeadLetter
    from scpalm.app.jobs.ledger.ledger import Job, Ledger
    from scpalm.app.settings import Settings

# Imports are inside the functions, so that `--help` does not wait for the libraries of the model.


class LedgerError(UserError):
    """The ledger does not exist, or the state of the job forbids the operation. The message says what to do."""


def jobs(
    *,
    dead: Annotated[
        bool, typer.Option("--dead", help="List dead letters: jobs and Redis requests that crashed their processes.")
    ] = False,
    replay: Annotated[str | None, typer.Option(metavar="ID", help="Put a failed job back into the queue.")] = None,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="Cancel a queued or running job.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to list, newest first.")] = 100,
) -> None:
    """List the jobs in the ledger given by SCPALM_REDIS_URL, or else SCPALM_RESULTS_DIR."""
    if sum((dead, replay is not None, cancel is not None)) > 1:
        raise typer.BadParameter("Use only one of --dead, --replay and --cancel.")
    from scpalm.app.settings import load_settings

    settings = load_settings()
    if replay is not None:
        asyncio.run(_replay(settings, replay))
    elif cancel is not None:
        asyncio.run(_cancel(settings, cancel))
    elif dead:
        asyncio.run(_list_dead(settings, limit))
    else:
        asyncio.run(_list(settings, limit))


@asynccontextmanager
async def _ledger(settings: Settings) -> AsyncIterator[Ledger]:
    ledger = _open(settings)
    try:
        yield ledger
    finally:
        await ledger.close()


def _open(settings: Settings) -> Ledger:
    from scpalm.app.storage.urls import is_redis

    if is_redis(settings.redis_url):
        from scpalm.app.jobs.ledger.redis import RedisLedger

        return RedisLedger(settings.redis_url, lease_seconds=settings.lease_seconds)
    from scpalm.app.jobs.home import LEDGER_FILE, jobs_folder
    from scpalm.app.jobs.ledger.sqlite import SqliteLedger

    path: Path = jobs_folder(settings) / LEDGER_FILE
    if not path.is_file():
        raise LedgerError(
            f"There is no job ledger at {path}. Set SCPALM_RESULTS_DIR, SCPALM_SPOOL_DIR or SCPALM_REDIS_URL to the "
            "same values as the service."
        )
    return SqliteLedger(path)


async def _list(settings: Settings, limit: int) -> None:
    async with _ledger(settings) as ledger:
        _print_jobs(await ledger.latest(limit=limit))


async def _list_dead(settings: Settings, limit: int) -> None:
    from scpalm.app.storage.urls import is_redis

    async with _ledger(settings) as ledger:
        _print_jobs(await ledger.dead(limit))
    if is_redis(settings.redis_url):
        from scpalm.app.jobs.dead_letters import dead_letters

        _print_letters(await asyncio.to_thread(dead_letters, settings.redis_url, limit))


async def _replay(settings: Settings, job_id: str) -> None:
    async with _ledger(settings) as ledger:
        job = await _find(ledger, job_id)
        if not await ledger.replay(job_id):
            raise LedgerError(f"Job {job_id} is {job.state}. Only failed jobs can be replayed.")
    typer.echo(f"{job_id} is queued again; {job.rows_done} cells are already done.", err=True)


async def _cancel(settings: Settings, job_id: str) -> None:
    async with _ledger(settings) as ledger:
        job = await _find(ledger, job_id)
        if not await ledger.cancel(job_id):
            raise LedgerError(f"Job {job_id} is already {job.state}.")
    typer.echo(f"{job_id} was cancelled.", err=True)


async def _find(ledger: Ledger, job_id: str) -> Job:
    job = await ledger.get(job_id)
    if job is None:
        raise LedgerError(
            f"There is no job {job_id}. `scpalm jobs` lists all jobs. A dead request is not a job: its client received "
            "an error and can send it again."
        )
    return job


def _print_jobs(found: Sequence[Job]) -> None:
    from scpalm.app.jobs.manifest import Manifest

    rows = []
    for job in found:
        manifest = Manifest.from_json(job.manifest)
        speed = job.rows_done / max(1e-3, (job.ended or time.time()) - job.started) if job.started else 0.0
        rows.append(
            (
                job.id,
                job.state,
                ",".join(manifest.spec.tasks),
                " ".join(manifest.model[:2]),
                f"{job.rows_done}/{job.rows if job.rows is not None else '?'}",
                f"{speed:.0f}",
                _age(job.created),
                job.error or "",
            )
        )
    _print_table(("job", "state", "tasks", "model", "cells", "cells/s", "age", "error"), rows)


def _print_letters(letters: Sequence[DeadLetter]) -> None:
    rows = [
        (letter.id, letter.model, letter.lane, str(letter.rows), str(letter.deliveries), _age(letter.moment))
        for letter in letters
    ]
    if rows:
        typer.echo()
        _print_table(("request", "model", "lane", "cells", "deliveries", "age"), rows)


def _print_table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    for row in (headings, *rows):
        typer.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def _age(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    days, hours, minutes = seconds // 86400, seconds // 3600, seconds // 60
    return f"{days}d" if days else f"{hours}h" if hours else f"{minutes}m" if minutes else f"{seconds}s"
