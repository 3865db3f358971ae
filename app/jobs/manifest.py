"""What a job has to know to be done, also by another process after a restart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass

from scpalm.app.http.body import Body
from scpalm.app.tasks.plans import Asked
from scpalm.model.bundle import Bundle
from scpalm.model.genes.normalize import Declared


@dataclass(frozen=True)
class Manifest:
    """A request without its body.

    Attributes:
        media_type, content_encoding: of the body. accept: media type of the answer, where the fetch does not say.
        asked: the tasks. layer, declared: see `Upload`. model: name, version and checksum of what computes.
    """

    media_type: str
    content_encoding: str
    accept: str
    asked: Asked
    layer: str | None
    declared: Declared
    model: tuple[str, str, str]

    def as_json(self) -> str:
        return json.dumps(asdict(self), sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        members = json.loads(text)
        asked = members.pop("asked")
        asked |= {name: tuple(asked[name]) for name in ("names", "genes", "drugs")}
        return cls(**{**members, "asked": Asked(**asked), "model": tuple(members["model"])})

    def fingerprint(self, body: Body) -> str:
        """The same cells, options and model give the same fingerprint, whatever format the answer takes."""
        digest = hashlib.sha256(body.data or b"")
        if body.path is not None:
            with body.path.open("rb") as file:
                digest = hashlib.file_digest(file, "sha256")
        what = {**asdict(self), "accept": ""}
        return hashlib.sha256(digest.digest() + json.dumps(what, sort_keys=True).encode()).hexdigest()


# The name of a job's body among its files.
BODY_FILE = "body"


def model_of(bundle: Bundle) -> tuple[str, str, str]:
    """Name, version, and a checksum over every file of a bundle."""
    checksums = sorted((name, entry["sha256"]) for name, entry in bundle.manifest["files"].items())
    return bundle.name, bundle.version, hashlib.sha256(repr(checksums).encode()).hexdigest()
