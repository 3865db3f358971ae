"""What both clients share: options of the connection, and requests to the routes of jobs and models."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import httpx

from scpalm.client.exchange import Request, Steps, simple
from scpalm.model.methods import Call

CHUNK = 1 << 20


def options_of(url: str, key: str | None, timeout: float) -> dict[str, Any]:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    # Answers may take as long as the service needs; connecting may not.
    return {"base_url": url.rstrip("/"), "headers": headers, "timeout": httpx.Timeout(timeout, connect=10)}


def lower(headers: httpx.Headers) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


def with_model(call: Call, model: str | None) -> Call:
    return call if model is None else replace(call, spec=replace(call.spec, model=model))


def listed(path: str, member: str) -> Steps:
    """A list from a route, as dicts."""
    answer = yield from simple(Request("GET", path))
    return list(json.loads(answer.body)[member])


def cancel_job(job_id: str) -> Steps:
    """Cancel a job."""
    yield from simple(Request("DELETE", f"/jobs/{job_id}"))
