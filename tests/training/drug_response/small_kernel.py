"""A bundle with a kernel head, trained on the small tables."""

from __future__ import annotations

import shutil
from pathlib import Path

from scpalm.model.bundle import Bundle
from scpalm.training.drug_response.kernel.export import export_kernel_head, train_kernel_head, training_rows
from tests.training.drug_response.small import Small


def write_kernel_head(small: Small, folder: Path) -> Bundle:
    """Train on all lines of the small tables and export into a copy of their bundle."""
    bundle = Bundle.load(shutil.copytree(small.bundle.path, folder / "bundle"))
    trained = train_kernel_head(small.tables, training_rows(small.tables), lambda text: None)
    export_kernel_head(trained, small.tables, bundle, [])
    return Bundle.load(bundle.path)
