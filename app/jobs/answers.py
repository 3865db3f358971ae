"""Encoded results of a job, kept with its values: every reader gets the stored file, not a new copy."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from scpalm.app.jobs.files import JobFiles


@dataclass(frozen=True)
class StoredAnswer:
    """An encoded result among the files of a job.

    Attributes:
        file: name of the file.
        filename: name that clients save it by.
        headers: headers of the response.
    """

    file: str
    filename: str
    headers: Mapping[str, str]


class AnswerStore:
    """The encoded results of one job, by media type. All methods block, and raise the errors of `JobFiles`."""

    def __init__(self, files: JobFiles) -> None:
        self._files = files

    def find(self, media_type: str) -> StoredAnswer | None:
        """The stored result, or None."""
        name = _name(media_type)
        return StoredAnswer(**json.loads(self._files.read(name))) if self._files.has(name) else None

    def add(self, media_type: str, content: bytes | Path, filename: str, headers: Mapping[str, str]) -> StoredAnswer:
        """Store an encoded result. Its description is written last, so that no reader finds half of a file."""
        answer = StoredAnswer(f"answer-{uuid4().hex}", filename, dict(headers))
        if isinstance(content, Path):
            self._files.copy_in(answer.file, content)
        else:
            self._files.write(answer.file, content)
        description = {"file": answer.file, "filename": filename, "headers": answer.headers}
        self._files.write(_name(media_type), json.dumps(description).encode())
        return answer


def _name(media_type: str) -> str:
    return f"answer-of-{hashlib.sha256(media_type.encode()).hexdigest()[:16]}.json"
