"""The reference of a bundle: ``reference.safetensors`` with the cells, ``reference.json`` with what they are."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Lock
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save

from scpalm.model.annotation.calibration import Calibration
from scpalm.model.annotation.reference import Reference
from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError, MissingPartError
from scpalm.model.io.labels import Categories

CELLS_FILE = "reference.safetensors"
CARD_FILE = "reference.json"
FORMAT_VERSION = 1


@dataclass(frozen=True)
class Entry:
    """One label of one source.

    Attributes:
        label: as the source wrote it. name: readable. broad: the broad type, which cells are labelled with.
        cell_ontology_id: empty where no term is certain. tissue, source: where the cells came from.
    """

    label: str
    name: str
    broad: str
    cell_ontology_id: str
    tissue: str
    source: str


@dataclass(frozen=True, eq=False)
class ReferenceCells:
    """The cells of a bundle's reference.

    Attributes:
        array: ``[R, D]`` float16 embedding.
        entry: ``[R]`` int32, what each cell is: position in ``entries``.
        entries: the labels of all sources.
        calibration: from scores to probabilities, and the threshold; None before it is measured.
        provenance: how the calibration was measured; JSON.
    """

    array: NDArray[np.float16]
    entry: NDArray[np.int32]
    entries: Sequence[Entry]
    calibration: Calibration | None = None
    provenance: dict[str, Any] | None = None

    def labels(self) -> Categories:
        """The broad type of each cell."""
        return Categories.of([self.entries[code].broad for code in self.entry])

    def details(self) -> Categories:
        """The readable name of each cell's type."""
        return Categories.of([self.entries[code].name for code in self.entry])

    def files(self) -> dict[str, bytes]:
        """The content of the files in a bundle. The calibration must be there."""
        assert self.calibration is not None
        card = {
            "format_version": FORMAT_VERSION,
            "calibration": self.calibration.as_dict(),
            "provenance": self.provenance or {},
            "entries": [asdict(entry) for entry in self.entries],
        }
        return {
            CELLS_FILE: save({"array": self.array, "entry": self.entry}),
            CARD_FILE: json.dumps(card, indent=1, ensure_ascii=False).encode(),
        }


@dataclass(frozen=True, eq=False)
class BundledReference:
    """The opened reference of a bundle.

    Attributes:
        reference: broad types.
        details: ``[R]`` readable name of each cell's type.
        ontology_ids: Cell Ontology id by readable name, where one is certain.
        tissues: tissues of the cells, sorted.
        sources: data sets and profile files, sorted.
    """

    reference: Reference
    details: Categories
    ontology_ids: dict[str, str]
    tissues: tuple[str, ...]
    sources: tuple[str, ...]


def load_cells(bundle: Bundle) -> ReferenceCells:
    """Read the reference of a bundle.

    Raises MissingPartError if the bundle has none, BundleError if it is damaged.
    """
    if CARD_FILE not in bundle.manifest["files"]:
        raise MissingPartError(
            f"The model {bundle.name} {bundle.version} has no reference of cell types ({CARD_FILE}). Send a file of "
            "labelled cells as the reference, or add one to the model with `scpalm-train reference`."
        )
    card_file, cells_file = bundle.file(CARD_FILE), bundle.file(CELLS_FILE)
    try:
        card = json.loads(card_file.read_text(encoding="utf-8"))
        if card["format_version"] != FORMAT_VERSION:
            raise BundleError(f"{card_file} has another format version. Run `scpalm-train reference` again.")
        tensors = load_file(cells_file)
        entries = [Entry(**entry) for entry in card["entries"]]
        calibration = Calibration(**card["calibration"])
        cells = ReferenceCells(tensors["array"], tensors["entry"], entries, calibration, card["provenance"])
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(card_file.parent, error) from error
    array, entry = cells.array, cells.entry
    if array.ndim != 2 or array.dtype != np.float16 or entry.dtype != np.int32 or entry.shape != array.shape[:1]:
        raise _damaged(card_file.parent, "wrong shapes")
    if len(entry) and not 0 <= entry.min() <= entry.max() < len(entries):
        raise _damaged(card_file.parent, "a cell without an entry")
    return cells


def _damaged(path: Path, reason: object) -> BundleError:
    return BundleError(f"{path} has a damaged reference ({reason!r}). Run `scpalm-train reference` again.")


_opened: WeakKeyDictionary[Bundle, BundledReference] = WeakKeyDictionary()
_opening = Lock()


def reference_of(bundle: Bundle, width: int) -> BundledReference:
    """The reference of a bundle, opened once and released with the bundle.

    Args:
        bundle: the model.
        width: D of its embedding.

    Raises MissingPartError if the bundle has none, BundleError if it is damaged or made with another embedding.
    """
    with _opening:
        found = _opened.get(bundle)
        if found is None:
            found = _opened[bundle] = _open(bundle, width)
        return found


def _open(bundle: Bundle, width: int) -> BundledReference:
    cells = load_cells(bundle)
    if cells.array.shape[1] != width:
        raise BundleError(
            f"The reference of {bundle.path} has width {cells.array.shape[1]}, but the embedding has width {width}. "
            "Run `scpalm-train reference` again."
        )
    return BundledReference(
        Reference(cells.array, cells.labels(), cells.calibration),
        cells.details(),
        {entry.name: entry.cell_ontology_id for entry in cells.entries if entry.cell_ontology_id},
        tuple(sorted({entry.tissue for entry in cells.entries})),
        tuple(sorted({entry.source for entry in cells.entries})),
    )
