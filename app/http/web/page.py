"""GET /: the page for looking at your own cells, built from ``app/web`` and committed, so that serving needs no node.

The page and its assets need no API key and hold no data; everything else that the page asks for does.
"""

from __future__ import annotations

import hashlib
import mimetypes
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from fastapi import APIRouter, HTTPException, Request, Response

from scpalm.app.http.dependencies import ServiceDep
from scpalm.model.release import release

router = APIRouter(include_in_schema=False)

BUILT = Path(__file__).parents[2] / "web" / "built"
# Nothing inline, nothing from elsewhere. `blob:` is for pictures that the page itself has drawn.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob:; connect-src 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; form-action 'none'; require-trusted-types-for 'script'"
)
_FOREVER = "public, max-age=31536000, immutable"  # the name of an asset changes with its content


@dataclass(frozen=True)
class _File:
    content: bytes
    media_type: str
    tag: str


@cache
def _files() -> Mapping[str, _File]:
    """The built files by path. Read once: they are part of the release."""
    found = {}
    for path in sorted(BUILT.rglob("*")):
        if path.is_file():
            content = path.read_bytes()
            kind = mimetypes.guess_type(path.name)[0] or "application/octet-stream"
            tag = f'"{hashlib.sha256(content).hexdigest()[:20]}"'
            found[path.relative_to(BUILT).as_posix()] = _File(content, kind, tag)
    return found


def _answer(request: Request, file: _File, headers: Mapping[str, str]) -> Response:
    headers = {"ETag": file.tag, **headers}
    if request.headers.get("if-none-match") == file.tag:
        return Response(status_code=304, headers=headers)
    return Response(file.content, media_type=file.media_type, headers=headers)


@router.get("/")
async def page(request: Request) -> Response:
    """The page."""
    return _answer(request, _files()["index.html"], {"Content-Security-Policy": POLICY, "Cache-Control": "no-cache"})


@router.get("/page/facts.json")
async def facts(service: ServiceDep) -> dict[str, object]:
    """What the page says before an upload: how much may be sent, how long jobs are kept, whether a key is needed."""
    settings = service.settings
    return {
        "release": release(),
        "job_hours": settings.job_hours,
        "max_body_bytes": settings.max_body_bytes,
        "max_cells": settings.max_cells,
        "needs_key": settings.api_keys_file is not None,
    }


@router.get("/page/{name:path}")
async def asset(name: str, request: Request) -> Response:
    """A script, stylesheet, icon or licence notice of the page."""
    file = _files().get(f"page/{name}")
    if file is None:
        raise HTTPException(404)
    return _answer(request, file, {"Cache-Control": _FOREVER})
