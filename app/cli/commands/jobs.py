"""The command ``scpalm jobs``: list jobs and dead letters, show one, replay failed jobs, cancel open ones."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from scpalm.app.cli.commands.job_tables import describe_job, describe_letter, job_table, letter_table, lines_of
from scpalm.model.errors import UserError

if TYPE_CHECKING:
    from scpalm.app.jobs.dead_letters import DeadLetter
    from scpalm.app.jobs.ledger.ledger import Job, Ledger
    from scpalm.app.settings import Settings

_MOST_LETTERS = 100_000

# Imports are inside the functions, so that `--help` does not wait for the libraries of the model.


class LedgerError(UserError):
    """The ledger does not exist, or the state of the job forbids the operation. The message says what to do."""


def jobs(
    *,
    dead: Annotated[
        bool, typer.Option("--dead", help="List dead letters: jobs and Redis requests that crashed their processes.")
    ] = False,
    show: Annotated[
        str | None,
        typer.Option(metavar="ID", help="Show one job or dead request: what it asked for, and what happened."),
    ] = None,
    replay: Annotated[str | None, typer.Option(metavar="ID", help="Put a failed job back into the queue.")] = None,
    cancel: Annotated[str | None, typer.Option(metavar="ID", help="Cancel a queued or running job.")] = None,
    backup: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Copy jobs and results into a new folder, while the service runs."),
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="Maximum number of jobs to list, newest first.")] = 100,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, with every field.")] = False,
) -> None:
    """List the jobs in the ledger given by SCPALM_REDIS_URL, or else SCPALM_RESULTS_DIR.

    Example: scpalm jobs --dead --json
    """
    if sum((dead and show is None, show is not None, replay is not None, cancel is not None, backup is not None)) > 1:
        raise typer.BadParameter("Use only one of --dead, --show, --replay, --cancel and --backup.")
    from scpalm.app.settings import load_settings

    settings = load_settings()
    if backup is not None:
        _back_up(settings, backup)
    elif replay is not None:
        asyncio.run(_replay(settings, replay))
    elif cancel is not None:
        asyncio.run(_cancel(settings, cancel))
    elif show is not None:
        found = asyncio.run(_show(settings, show))
        typer.echo(json.dumps(found, indent=2) if as_json else "\n".join(lines_of(found)))
    else:
        listed, letters = asyncio.run(_list(settings, limit, dead=dead))
        if as_json:
            described = [describe_job(job) for job in listed] + [describe_letter(letter) for letter in letters]
            typer.echo(json.dumps(described, indent=2))
        else:
            typer.echo("\n".join([*job_table(listed), *letter_table(letters)]))


def _back_up(settings: Settings, target: Path) -> None:
    from scpalm.app.jobs.backup import back_up
    from scpalm.app.jobs.home import LEDGER_FILE
    from scpalm.app.storage.urls import is_redis

    if is_redis(settings.redis_url):
        raise LedgerError(
            "The jobs are in Redis. Back up its append-only file and the shared folder; see deploy/RUNBOOK.md."
        )
    number = back_up(_ledger_file(settings).parent, target, LEDGER_FILE)
    typer.echo(
        f"{number} jobs -> {target}. To restore them, start a service with SCPALM_RESULTS_DIR={target}.", err=True
    )


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
    from scpalm.app.jobs.ledger.sqlite import SqliteLedger

    return SqliteLedger(_ledger_file(settings))


def _ledger_file(settings: Settings) -> Path:
    from scpalm.app.jobs.home import LEDGER_FILE, jobs_folder

    path: Path = jobs_folder(settings) / LEDGER_FILE
    if not path.is_file():
        raise LedgerError(
            f"There is no job ledger at {path}. Set SCPALM_RESULTS_DIR, SCPALM_SPOOL_DIR or SCPALM_REDIS_URL to the "
            "same values as the service."
        )
    return path


async def _list(settings: Settings, limit: int, *, dead: bool) -> tuple[list[Job], list[DeadLetter]]:
    async with _ledger(settings) as ledger:
        if dead:
            return list(await ledger.dead(limit)), await _letters(settings, limit)
        return list(await ledger.latest(limit=limit)), []


async def _letters(settings: Settings, limit: int) -> list[DeadLetter]:
    from scpalm.app.storage.urls import is_redis

    if not is_redis(settings.redis_url):
        return []
    from scpalm.app.jobs.dead_letters import dead_letters

    return await asyncio.to_thread(dead_letters, settings.redis_url, limit)


async def _show(settings: Settings, wanted: str) -> dict[str, object]:
    async with _ledger(settings) as ledger:
        if (job := await ledger.get(wanted)) is not None:
            return describe_job(job)
    for letter in await _letters(settings, _MOST_LETTERS):
        if letter.id == wanted:
            return describe_letter(letter)
    raise LedgerError(f"There is no job or dead request {wanted}. `scpalm jobs` and `scpalm jobs --dead` list them.")


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
