"""Putting files into a finished bundle: heads and tables that other commands make."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scpalm.model.bundle import Bundle, sha256_of


def add_files(bundle: Path, files: Mapping[str, Path | bytes], entries: Mapping[str, Any]) -> None:
    """Copy ``files`` into a bundle and set top-level ``entries`` of its manifest, checksums included.

    The bundle is verified first. A new file lies beside the old one before the manifest that names its checksum, and
    both move in one step each, so that a kill leaves a bundle that loads or one that is refused, never a wrong one.
    Raises BundleError when the bundle is not sound, ValueError for a name that is no plain file name.
    """
    manifest = dict(Bundle.load(bundle).manifest)
    members = dict(manifest["files"])
    for name, content in files.items():
        if Path(name).name != name or name == "manifest.json":
            raise ValueError(f"'{name}' is not the name of a file in a bundle.")
        partial = bundle / f"{name}.partial"
        partial.write_bytes(content if isinstance(content, bytes) else content.read_bytes())
        members[name] = {"sha256": sha256_of(partial), "bytes": partial.stat().st_size}
        os.replace(partial, bundle / name)
    write_json(bundle / "manifest.json", manifest | dict(entries) | {"files": dict(sorted(members.items()))})


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Replace a JSON file in one step."""
    partial = path.with_name(f"{path.name}.partial")
    partial.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    os.replace(partial, path)


def as_umask_says(folder: Path) -> None:
    """Let the files of a folder be read by whom any new file may be: safetensors writes its own for the owner alone."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)
