"""What the access log says of one request. Middleware makes the line; code that answers fills in the `AccessNote`."""

from __future__ import annotations

import re
from collections.abc import MutableMapping
from dataclasses import dataclass
from typing import Any

from scpalm.model.release import release

_STATE, _NOTE = "state", "access_note"
_TIMING = re.compile(r"([\w-]+);dur=([\d.]+)")
CHECKSUM_DIGITS = 12  # enough to tell bundles apart


@dataclass
class AccessNote:
    """What only the code that answers knows.

    Attributes:
        model: name, version and checksum of the bundle that computed the answer; None if none did.
        rows: number of cells of the request; None before the body has been opened.
    """

    model: tuple[str, str, str] | None = None
    rows: int | None = None


def access_note(scope: MutableMapping[str, Any]) -> AccessNote:
    """The note of the request with this ASGI scope."""
    note: AccessNote = scope.setdefault(_STATE, {}).setdefault(_NOTE, AccessNote())
    return note


@dataclass
class Exchange:
    """A request and its answer, as seen from outside.

    Attributes:
        status: 500 until the answer has begun.
        bytes_in, bytes_out: size of the bodies, as sent.
        server_timing: value of the header of that name.
    """

    status: int = 500
    bytes_in: int = 0
    bytes_out: int = 0
    server_timing: str = ""


def access_fields(scope: MutableMapping[str, Any], exchange: Exchange, seconds: float) -> dict[str, object]:
    """The fields of a line, by name. Empty ones are left out. Never the key itself."""
    state, note = scope.get(_STATE, {}), access_note(scope)
    key = state.get("api_key")
    model, version, checksum = note.model or (None, None, "")
    fields: dict[str, object] = {
        "request_id": state.get("request_id"),
        "method": scope["method"],
        "path": scope["path"],
        "route": getattr(scope.get("route"), "path", None),
        "status": exchange.status,
        "seconds": round(seconds, 6),
        "client": (scope.get("client") or (None,))[0],
        "key": None if key is None else key.name,
        "model": model,
        "version": version,
        "checksum": checksum[:CHECKSUM_DIGITS] or None,
        "release": release(),
        "rows": note.rows,
        "bytes_in": exchange.bytes_in,
        "bytes_out": exchange.bytes_out,
        **{f"{stage.replace('-', '_')}_ms": float(ms) for stage, ms in _TIMING.findall(exchange.server_timing)},
    }
    return {name: value for name, value in fields.items() if value is not None}
