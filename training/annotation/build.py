"""Add the reference of cell types to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from scpalm.model.bundle import Bundle
from scpalm.training.annotation.calibrate import answers_without_own_set, calibrate
from scpalm.training.annotation.cells import ReferenceOptions, balanced, embed, labelled_cells, reference_cells
from scpalm.training.corpus.reader import Corpus
from scpalm.training.export.bundle_files import add_files


def add_reference(
    corpus: Corpus, bundle: Path, options: ReferenceOptions, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Embed labelled cells of the corpus, calibrate on data sets left out, and write the reference into the bundle.

    The embedding is the bundle's default one, in half precision. Returns the entry of the manifest.

    Raises:
        BundleError: the bundle is damaged. InputError: a label is not in the table of cell types.
        ValueError: the corpus has other genes than the bundle, or nothing to calibrate on.
    """
    loaded = Bundle.load(bundle)
    cells = labelled_cells(corpus, options.max_of_label, options.seed)
    progress(f"embedding {len(cells.rows):,} cells")
    array = embed(corpus, loaded, cells.rows)
    chosen = balanced(cells, options.max_bytes // (2 * array.shape[1]))
    held_out = answers_without_own_set(cells, array, progress)
    calibration, provenance = calibrate(held_out)
    kept = reference_cells(cells.select(chosen), array[chosen])
    entry = {
        "cells": len(chosen),
        "simulated_cells": int(cells.simulated[chosen].sum()),
        "labels": len(set(cells.broad[chosen])),
        "width": int(array.shape[1]),
        "corpus": corpus.digest,
        "options": asdict(options),
        "calibration": calibration.as_dict(),
        "held_out": provenance,
    }
    add_files(bundle, replace(kept, calibration=calibration, provenance=provenance).files(), {"reference": entry})
    return entry
