"""A bundle: one directory with everything a session needs, verified before use. It holds no pickles."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from scpalm.model.errors import BundleError
from scpalm.model.genes.vocabulary import Vocabulary

FORMAT_VERSION = 2
Identity = tuple[str, str, str]
DEFAULT_BUNDLE = Path(__file__).parent / "bundles" / "mini"


def sha256_of(path: Path) -> str:
    """SHA-256 of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


@dataclass(frozen=True, eq=False)
class Bundle:
    """A verified bundle.

    Attributes:
        path: the directory.
        manifest: content of ``manifest.json``: name, version, preset, network sizes, training data, evaluation, and
            the sha256 of every file.
    """

    path: Path
    manifest: dict[str, Any]

    @classmethod
    def load(cls, path: Path | str = DEFAULT_BUNDLE) -> Bundle:
        """Read and verify a bundle. Raises BundleError, which names the file and the reason."""
        path = Path(path)
        file = path / "manifest.json"
        if not file.is_file():
            raise BundleError(f"{path} is not a bundle: manifest.json is missing. Make one with `scpalm-train export`.")
        try:
            manifest = json.loads(file.read_text())
            version = manifest["format_version"]
            checksums = {str(name): str(entry["sha256"]) for name, entry in manifest["files"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise BundleError(f"{file} is not a valid manifest ({error!r}). Export the bundle again.") from error
        if version != FORMAT_VERSION:
            raise BundleError(
                f"{file} has format version {version}, but this release reads version {FORMAT_VERSION}. "
                "Install the scpalm release that wrote it, or export the bundle again."
            )
        for key in ("name", "version"):
            if not isinstance(manifest.get(key), str) or not manifest[key]:
                raise BundleError(f"{file}: '{key}' is missing or not a string. Export the bundle again.")
        for name, expected in checksums.items():
            member = path / name
            if Path(name).name != name or not member.is_file():
                raise BundleError(f"{path}: {name} is listed in the manifest but missing. Copy the bundle again.")
            if sha256_of(member) != expected:
                raise BundleError(f"{member} does not match its checksum in the manifest. Copy the bundle again.")
        return cls(path, manifest)

    @property
    def name(self) -> str:
        return str(self.manifest["name"])

    @property
    def version(self) -> str:
        return str(self.manifest["version"])

    @cached_property
    def identity(self) -> Identity:
        """Name, version, and one checksum over all files."""
        checksums = sorted((name, entry["sha256"]) for name, entry in self.manifest["files"].items())
        return self.name, self.version, hashlib.sha256(repr(checksums).encode()).hexdigest()

    def file(self, name: str) -> Path:
        """Path of a verified file of the bundle. Raises BundleError if the manifest does not list it."""
        if name not in self.manifest["files"]:
            raise BundleError(f"The manifest of {self.path} does not list {name}. Export the bundle again.")
        return self.path / name

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.load(self.file("genes.parquet"))


def write_manifest(bundle: Path, manifest: dict[str, Any]) -> None:
    """Write ``manifest.json`` with the size and sha256 of every other file in the folder."""
    members = sorted(file for file in bundle.iterdir() if file.name != "manifest.json")
    files = {file.name: {"sha256": sha256_of(file), "bytes": file.stat().st_size} for file in members}
    (bundle / "manifest.json").write_text(json.dumps(manifest | {"files": files}, indent=1) + "\n")
