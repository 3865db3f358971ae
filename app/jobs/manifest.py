"""Everything needed to run a job, including in another process or after a restart."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from scpalm.app.errors import JobStorageError
from scpalm.app.jobs.ledger.ledger import Submission
from scpalm.app.parsing.upload import Upload
from scpalm.app.serving.labelled import labelled_upload
from scpalm.model.bundle import Identity
from scpalm.model.spec import RequestSpec

# 1: tasks and options under `asked`. 2: a request spec.
VERSION = 2
# Name of the file with the body of a job.
BODY_FILE = "body"
# Name of the file with the labelled cells of a job.
LABELLED_BODY_FILE = "labelled"


@dataclass(frozen=True)
class Manifest:
    """A request without its body.

    Attributes:
        spec: the requested tasks and options. Its format is the default format of the result.
        media_type: media type of the body.
        content_encoding: content encoding of the body; "" for none.
        model: identity of the model to use.
        labelled: media type and content encoding of the file of labelled cells; None if there is none.
    """

    spec: RequestSpec
    media_type: str
    content_encoding: str
    model: Identity
    labelled: tuple[str, str] | None = None

    @classmethod
    def of(cls, upload: Upload, model: Identity) -> Manifest:
        """The manifest of an upload."""
        second = upload.labelled
        labelled = None if second is None else (second.media_type, second.content_encoding)
        return cls(upload.spec, upload.media_type, upload.content_encoding, model, labelled)

    def upload(self, body: Path) -> Upload:
        """The upload to parse, given the path of the body."""
        return Upload(body, self.media_type, self.spec, self.content_encoding)

    def labelled_upload(self, path: Path) -> Upload:
        """The upload of the labelled cells to parse, given the path of their file."""
        how = self.spec.labelled_by
        assert self.labelled is not None and how is not None
        return labelled_upload(path, *self.labelled, how)

    def as_json(self) -> str:
        """The manifest as JSON, with its version."""
        return json.dumps({"version": VERSION, **asdict(self)}, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> Manifest:
        """Read a manifest of this version or of version 1.

        Raises JobStorageError if a newer release wrote the manifest, or if it is damaged.
        """
        try:
            members = json.loads(text)
            version = members.pop("version", 1)
            if version == 1:
                members = _from_version_1(members)
            elif version != VERSION:
                raise JobStorageError(
                    f"The job was accepted by a newer release (manifest version {version}; this release reads up to "
                    f"{VERSION}). Update the service, or send the job again."
                )
            spec = RequestSpec.from_dict(members["spec"])
            name, release, checksum = members["model"]
            labelled = None
            if members.get("labelled") is not None:
                second_type, second_encoding = members["labelled"]
                labelled = (str(second_type), str(second_encoding))
            identity = (name, release, checksum)
            return cls(spec, members["media_type"], members["content_encoding"], identity, labelled)
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise JobStorageError(
                f"The job's manifest is damaged ({type(error).__name__}). Send the job again."
            ) from error

    def submission(
        self, body: bytes | Path, owner: str, key: str | None, labelled: bytes | Path | None = None
    ) -> Submission:
        """What distinguishes this request from others. The format of the result does not matter. Blocking."""
        digest = _digest(body) + (b"" if labelled is None else _digest(labelled))
        any_format = replace(self, spec=replace(self.spec, format=""))
        any_model = replace(any_format, model=("", "", ""))
        fingerprint, request = (
            hashlib.sha256(digest + manifest.as_json().encode()).hexdigest() for manifest in (any_format, any_model)
        )
        return Submission(owner, fingerprint, request, key)


def _digest(body: bytes | Path) -> bytes:
    if isinstance(body, bytes):
        return hashlib.sha256(body).digest()
    with body.open("rb") as file:
        return hashlib.file_digest(file, "sha256").digest()


def _from_version_1(old: dict[str, object]) -> dict[str, object]:
    asked = old["asked"]
    assert isinstance(asked, dict)
    options = {name: asked[name] for name in ("genes", "scale", "summary", "drugs") if asked.get(name)}
    spec = {
        "tasks": asked["names"],
        "options": options,
        "layer": old["layer"],
        "input": old["declared"],
        "format": old["accept"],
    }
    return {**old, "spec": spec}
