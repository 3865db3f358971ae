"""Jobs and dead letters as tables and as mappings. Bodies and results never appear: they are data of users."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from scpalm.app.jobs.dead_letters import DeadLetter
    from scpalm.app.jobs.ledger.ledger import Job


def describe_job(job: Job) -> dict[str, object]:
    """What a job asked for and what happened to it; JSON. Options that are lists are given by their length."""
    from scpalm.app.errors import JobStorageError
    from scpalm.app.jobs.manifest import Manifest

    found: dict[str, object] = {"id": job.id, "kind": "job", "state": job.state, "error": job.error, "key": job.owner}
    try:
        manifest = Manifest.from_json(job.manifest)
    except JobStorageError as error:
        found["manifest"] = str(error)
    else:
        spec = manifest.spec
        found |= {
            "tasks": list(spec.tasks),
            "options": {name: _short(value) for name, value in spec.options.items()},
            "layer": spec.layer,
            "input": spec.input,
            "model": " ".join(manifest.model[:2]),
            "checksum": manifest.model[2],
            "media_type": manifest.media_type,
            "content_encoding": manifest.content_encoding,
            "result_type": spec.format,
        }
    return found | {
        "fingerprint": job.fingerprint,
        "rows": job.rows,
        "rows_done": job.rows_done,
        "rows_per_second": round(_speed(job), 1),
        "attempt": job.attempt,
        "processes_that_died": job.deaths,
        "created": _moment(job.created),
        "started": _moment(job.started),
        "ended": _moment(job.ended),
    }


def describe_letter(letter: DeadLetter) -> dict[str, object]:
    """A request that crashed its workers; JSON."""
    return {
        "id": letter.id,
        "kind": "request",
        "state": "dead",
        "model": letter.model,
        "lane": letter.lane,
        "rows": letter.rows,
        "bytes": letter.num_bytes,
        "deliveries": letter.deliveries,
        "created": _moment(letter.moment),
    }


def lines_of(found: Mapping[str, object]) -> list[str]:
    """A description as aligned lines."""
    width = max(map(len, found))
    shown = {
        name: json.dumps(value) if isinstance(value, list | dict) else "-" if value in (None, "") else str(value)
        for name, value in found.items()
    }
    return [f"{name.replace('_', ' '):{width}}  {value}" for name, value in shown.items()]


def job_table(jobs: Iterable[Job]) -> list[str]:
    """One line a job."""
    rows = []
    for job in jobs:
        found = describe_job(job)
        tasks = found.get("tasks", [])
        assert isinstance(tasks, list)
        rows.append(
            (
                job.id,
                job.state,
                ",".join(tasks) or "?",
                str(found.get("model", "?")),
                f"{job.rows_done}/{job.rows if job.rows is not None else '?'}",
                f"{_speed(job):.0f}",
                _age(job.created),
                job.error or "",
            )
        )
    return _table(("job", "state", "tasks", "model", "cells", "cells/s", "age", "error"), rows)


def letter_table(letters: Sequence[DeadLetter]) -> list[str]:
    """One line a dead request, after an empty line; nothing if there are none."""
    rows = [
        (letter.id, letter.model, letter.lane, str(letter.rows), str(letter.deliveries), _age(letter.moment))
        for letter in letters
    ]
    return ["", *_table(("request", "model", "lane", "cells", "deliveries", "age"), rows)] if rows else []


def _table(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    widths = [max(map(len, column)) for column in zip(headings, *rows, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in (headings, *rows)
    ]


def _speed(job: Job) -> float:
    return job.rows_done / max(1e-3, (job.ended or time.time()) - job.started) if job.started else 0.0


def _short(value: object) -> object:
    return f"{len(value)} items" if isinstance(value, list | tuple | dict) and len(value) > 8 else value


def _moment(seconds: float | None) -> str | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds")


def _age(moment: float) -> str:
    seconds = max(0, int(time.time() - moment))
    days, hours, minutes = seconds // 86400, seconds // 3600, seconds // 60
    return f"{days}d" if days else f"{hours}h" if hours else f"{minutes}m" if minutes else f"{seconds}s"
