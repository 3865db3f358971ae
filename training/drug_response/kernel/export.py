"""Fit and calibrate the kernel head, and add it to a bundle."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.drugs.synonyms import SYNONYMS
from scpalm.model.drug_response.kernel.head import KernelHead, NewDrugs
from scpalm.model.drug_response.session import CARD_FILE, KERNEL_CARD_VERSION, TABLE_FILE, UNITS, WEIGHTS_FILE
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.export import TERMS, least_similarity
from scpalm.training.drug_response.kernel.calibrate import LEVEL, Calibrated, calibrate
from scpalm.training.drug_response.kernel.fit import Responses, fit
from scpalm.training.drug_response.kernel.new_drugs import fingerprint_kernel, invert
from scpalm.training.export.bundle_files import add_files
from scpalm.training.metrics.rows import Row
from scpalm.training.runs.config import ConfigError

LINE_QUANTILE = 0.99  # of the distances of held-out training lines: beyond, a profile is outside the domain


def training_rows(tables: Tables, left_out: Sequence[str] = ()) -> NDArray[np.int64]:
    """All rows but the published test rows, without the lines ``left_out``. Raises ConfigError for an unknown line."""
    unknown = set(left_out) - set(tables.lines.tolist())
    if unknown:
        raise ConfigError(f"--leave-out: there is no line '{sorted(unknown)[0]}' in expression.parquet.")
    lines = np.flatnonzero(np.isin(tables.lines, list(left_out)))
    return np.flatnonzero((tables.published_split != "test") & ~np.isin(tables.line_of, lines))


@dataclass(frozen=True, eq=False)
class TrainedHead:
    """A head with what its card says.

    Attributes:
        head: the trained process.
        lines: ``[T]`` numbers of the training lines in the tables.
        distance: 1 minus the correlation with the nearest other line, which 99 % of the training lines keep below.
    """

    head: KernelHead
    lines: NDArray[np.int64]
    distance: float


def train_kernel_head(
    tables: Tables, rows: NDArray[np.int64], progress: Callable[[str], object] = print
) -> TrainedHead:
    """Fit and calibrate on ``rows``."""
    lines = np.unique(tables.line_of[rows])
    fitted = fit(tables, Responses.of(tables, rows), lines)
    calibrated: Calibrated = calibrate(tables, rows, lines, progress)
    usable = np.flatnonzero([drug.doubt is None for drug in tables.drugs])
    head = KernelHead(
        fitted.profiles,
        fitted.weights,
        fitted.mutations,
        fitted.drug_mean,
        calibrated.scale,
        calibrated.held_out.astype(np.float16).astype(np.float32),
        NewDrugs(usable, invert(fingerprint_kernel([tables.drugs[drug] for drug in usable]))),
        calibrated.widths,
    )
    return TrainedHead(head, lines, _distance(fitted.profiles.lines))


def export_kernel_head(
    trained: TrainedHead, tables: Tables, bundle: Bundle, rows: Sequence[Row], biomarkers: Sequence[Row] = ()
) -> None:
    """Add the head to ``bundle``; ``rows`` and ``biomarkers`` are figures for its card."""
    head, lines = trained.head, trained.lines
    table = DrugTable([replace(drug, in_training=True, synonyms=SYNONYMS.get(drug.name, ())) for drug in tables.drugs])
    card: Mapping[str, Any] = {
        "version": KERNEL_CARD_VERSION,
        "units": UNITS,
        "terms": TERMS,
        "genes": tables.genes,
        "mutation_names": tables.mutation_names,
        "methylation_names": tables.methylation_names,
        "tissues": sorted({str(name) for name in tables.types[lines]}),
        "lines": [{"id": str(tables.lines[line]), "type": str(tables.types[line])} for line in lines],
        "domain": {"cell_distance": trained.distance, "drug_similarity": least_similarity(table)},
        "intervals": {
            "level": LEVEL,
            "known_line": head.widths.known_line,
            "new_line": list(head.widths.new_line),
            "new_drug": head.widths.new_drug,
            "contrast": head.widths.contrast,
        },
    }
    entries = {
        "drug_response": {
            "terms": TERMS,
            "units": UNITS,
            "training": {"head": "kernel", "lines": len(lines), "drugs": len(table)},
            "evaluation": list(rows),
            "biomarkers": list(biomarkers),
        }
    }
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder) / TABLE_FILE)
        files: dict[str, Path | bytes] = {
            WEIGHTS_FILE: save({name: np.ascontiguousarray(value) for name, value in head.arrays().items()}),
            CARD_FILE: json.dumps(card).encode(),
            TABLE_FILE: Path(folder) / TABLE_FILE,
        }
        add_files(bundle.path, files, entries)


def _distance(lines: NDArray[np.float32]) -> float:
    standard = (lines - lines.mean(axis=0)) / np.maximum(lines.std(axis=0), 1e-6)
    similarity = np.corrcoef(standard)
    np.fill_diagonal(similarity, -1)
    return float(np.quantile(1 - similarity.max(axis=1), LINE_QUANTILE))
