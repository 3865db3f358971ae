"""The note stored with results: the model, the coverage of genes, the kind of input, and the columns."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from scpalm.model.bundle import Identity
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.output.plain import Plain, plain_mapping
from scpalm.model.release import release
from scpalm.model.tasks.task import OutputSpec

NOTE_KEY = "scpalm"  # in uns


def note_of(
    model: Identity, coverage: Coverage, report: InputReport | None, metadata: Mapping[str, object]
) -> dict[str, object]:
    """The note of any response; JSON.

    Args:
        model: name, version and checksum of the bundle.
        coverage: which genes the model knows.
        report: what the input was classified as, or None.
        metadata: metadata of the tasks; its ``warnings`` follow those of the report.
    """
    warnings = [] if report is None else list(report.warnings)
    more = metadata.get("warnings", [])
    assert isinstance(more, list)
    return {
        "model": {"name": model[0], "version": model[1]},
        "release": release(),
        "checksum": model[2],
        "coverage": coverage.as_dict() | {"counts_matched": None if report is None else report.counts_matched},
        "input": None if report is None else report.as_dict(),
        **metadata,
        "warnings": warnings + more,
    }


def anndata_note(
    note: Mapping[str, object], outputs: Sequence[OutputSpec], keys: Mapping[str, str] | None = None
) -> dict[str, Plain]:
    """The note in ``uns["scpalm"]``, as nested plain values: adds the key of each output and the names of its columns.

    ``keys``: the key of each output, by name, if it is not the default key.
    """
    written = {output.name: (keys or {}).get(output.name, output.key) for output in outputs}
    columns = {
        written[output.name]: list(output.columns)
        for output in outputs
        if output.columns is not None and output.placement == "obsm"
    }
    key = written[outputs[0].name]
    return plain_mapping({**note, "key": key, "keys": written, **({"columns": columns} if columns else {})})


def stored_note(found: object) -> dict[str, Any]:
    """A note read from ``uns``: a mapping, or the JSON text that earlier releases wrote. Raises ValueError."""
    if isinstance(found, str | bytes):
        found = json.loads(found)
    if not isinstance(found, Mapping):
        raise ValueError("The note is not a mapping.")
    return dict(found)


def keep_columns(note: dict[str, Plain], earlier: object) -> None:
    """Keep the names of columns that an earlier note in the same ``uns`` has for keys that this result leaves alone."""
    try:
        columns = stored_note(earlier).get("columns", {})
    except ValueError:
        return
    if isinstance(columns, Mapping) and columns:
        mine = note.get("columns", {})
        assert isinstance(mine, dict)
        note["columns"] = plain_mapping(columns) | mine
