"""The reference of a bundle: ``reference.safetensors`` with the cells, ``reference.json`` with what they are."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
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
from scpalm.model.annotation.discriminant import Discriminant
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
class StoredReference:
    """The content of the two files.

    Attributes:
        names: the labels, which are broad types; sorted.
        cells: ``[R, D]`` float16 embedding of cells, for distances.
        discriminant: its groups are the entries.
        entries: the labels of all sources.
        calibration: from shares to probabilities, and the threshold.
        provenance: how the calibration was measured; JSON.
    """

    names: tuple[str, ...]
    cells: NDArray[np.float16]
    discriminant: Discriminant
    entries: Sequence[Entry]
    calibration: Calibration
    provenance: Mapping[str, Any]

    def files(self) -> dict[str, bytes]:
        """The files by name."""
        card = {
            "format_version": FORMAT_VERSION,
            "labels": list(self.names),
            "calibration": self.calibration.as_dict(),
            "provenance": self.provenance,
            "entries": [asdict(entry) for entry in self.entries],
        }
        discriminant = self.discriminant
        tensors: dict[str, NDArray[Any]] = {
            "cells": self.cells,
            "projection": discriminant.projection,
            "centroids": discriminant.centroids,
            "groups": discriminant.groups.astype(np.float16),
            "label_of_group": discriminant.label_of_group,
        }
        text = json.dumps(card, indent=1, ensure_ascii=False)
        return {CELLS_FILE: save(tensors), CARD_FILE: text.encode()}


@dataclass(frozen=True, eq=False)
class BundledReference:
    """The opened reference of a bundle.

    Attributes:
        reference: broad types.
        details: readable name of the cells of each group.
        ontology_ids: Cell Ontology id by readable name, where one is certain.
        tissues: tissues of the cells, sorted.
        sources: data sets and profile files, sorted.
    """

    reference: Reference
    details: Categories
    ontology_ids: dict[str, str]
    tissues: tuple[str, ...]
    sources: tuple[str, ...]


def load_reference(bundle: Bundle) -> StoredReference:
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
        stored = StoredReference(
            tuple(map(str, card["labels"])),
            tensors["cells"],
            Discriminant(
                tensors["projection"],
                tensors["centroids"],
                tensors["groups"].astype(np.float32),
                tensors["label_of_group"],
            ),
            [Entry(**entry) for entry in card["entries"]],
            Calibration(**card["calibration"]),
            card["provenance"],
        )
    except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
        raise _damaged(card_file.parent, error) from error
    _check(stored, card_file.parent)
    return stored


def _check(stored: StoredReference, path: Path) -> None:
    discriminant, width = stored.discriminant, stored.cells.shape[-1]
    found = {
        "cells": stored.cells.shape[1:],
        "projection": discriminant.projection.shape,
        "centroids": discriminant.centroids.shape,
        "groups": discriminant.groups.shape,
        "label_of_group": discriminant.label_of_group.shape,
    }
    num_groups = len(stored.entries)
    expected = {
        "cells": (width,),
        "projection": (width, width),
        "centroids": (len(stored.names), width),
        "groups": (num_groups, width),
        "label_of_group": (num_groups,),
    }
    wrong = [name for name, shape in expected.items() if found[name] != shape]
    labels = discriminant.label_of_group
    if wrong or not num_groups or not 0 <= labels.min() <= labels.max() < len(stored.names):
        raise _damaged(path, f"wrong shapes: {', '.join(wrong) or 'labels'}")


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
    stored = load_reference(bundle)
    if stored.cells.shape[1] != width:
        raise BundleError(
            f"The reference of {bundle.path} has width {stored.cells.shape[1]}, but the embedding has width {width}. "
            "Run `scpalm-train reference` again."
        )
    return BundledReference(
        Reference(stored.names, stored.cells, stored.discriminant, stored.calibration),
        Categories.of([entry.name for entry in stored.entries]),
        {entry.name: entry.cell_ontology_id for entry in stored.entries if entry.cell_ontology_id},
        tuple(sorted({entry.tissue for entry in stored.entries})),
        tuple(sorted({entry.source for entry in stored.entries})),
    )
