"""Add the reference of cell types to a bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from scpalm.model.annotation.bundled import StoredReference
from scpalm.model.bundle import Bundle
from scpalm.training.annotation.calibrate import answers_without_own_set, calibrate
from scpalm.training.annotation.cells import ReferenceOptions, balanced, embed, fit, labelled_cells
from scpalm.training.cell_types.table import cell_type_table
from scpalm.training.corpus.reader import Corpus
from scpalm.training.export.bundle_files import add_files


def add_reference(
    corpus: Corpus, bundle: Path, options: ReferenceOptions, progress: Callable[[str], None] = lambda text: None
) -> dict[str, Any]:
    """Embed labelled cells of the corpus, calibrate on data sets left out, and write the reference into the bundle.

    The embedding is the bundle's default one. Returns the entry of the manifest.

    Raises:
        BundleError: the bundle is damaged. InputError: no cell has a label.
        ValueError: the corpus has other genes than the bundle, or nothing to calibrate on.
    """
    loaded = Bundle.load(bundle)
    cells = labelled_cells(corpus, options.max_of_label, options.seed)
    if own := cells.labels_outside(cell_type_table()):
        progress(f"new types, because training/cell_types does not list these labels: {', '.join(own)}")
    progress(f"embedding {len(cells.rows):,} cells")
    array = embed(corpus, loaded, cells.rows)
    typed = np.flatnonzero(cells.broad != "")
    with_type = cells.select(typed)
    names, discriminant, entries = fit(with_type, array[typed])
    kept = typed[balanced(with_type, options.max_cells)]
    calibration, provenance = calibrate(answers_without_own_set(cells, array, options.max_cells, progress))
    stored = StoredReference(names, array[kept].astype(np.float16), discriminant, entries, calibration, provenance)
    entry = {
        "cells": len(typed),
        "simulated_cells": int(cells.simulated[typed].sum()),
        "stored_cells": len(kept),
        "labels": len(names),
        "names": len({entry.name for entry in entries}),
        "width": int(array.shape[1]),
        "corpus": corpus.digest,
        "options": asdict(options),
        "calibration": calibration.as_dict(),
        "held_out": provenance,
    }
    add_files(bundle, stored.files(), {"reference": entry})
    return entry
