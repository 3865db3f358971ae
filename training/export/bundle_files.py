"""Add files to a finished bundle, such as heads and tables that other commands make."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from scpalm.model.annotation.bundled import CARD_FILE as REFERENCE_FILE
from scpalm.model.bundle import Bundle, sha256_of
from scpalm.model.drug_response.session import CARD_FILE
from scpalm.training.metrics.rows import write_json

# Files that make another task possible.
_TASK_OF = {CARD_FILE: "ic50", REFERENCE_FILE: "annotate"}


def add_files(bundle: Path, files: Mapping[str, Path | bytes], entries: Mapping[str, Any]) -> None:
    """Copy ``files`` into a bundle, and set top-level ``entries`` and checksums in its manifest.

    The bundle is verified first. Each file and the manifest are replaced in one step, files first. A process killed
    in between leaves a bundle that loads or one that is refused, never one that loads wrong content.

    Raises:
        BundleError: the bundle is damaged. ValueError: a name that is not a plain file name.
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
    changed = manifest | dict(entries) | {"files": dict(sorted(members.items()))}
    possible = [task for name, task in _TASK_OF.items() if name in members]
    changed["tasks"] = list(dict.fromkeys([*changed["tasks"], *possible]))
    write_json(bundle / "manifest.json", changed)


def apply_umask(folder: Path) -> None:
    """Give the files of a folder the usual permissions: safetensors writes files that only the owner can read."""
    mask = os.umask(0)
    os.umask(mask)
    for path in folder.iterdir():
        path.chmod(0o666 & ~mask)
