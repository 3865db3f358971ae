"""What is recorded next to the values: which model, which genes, what the input was, what the columns are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from scpalm.model.genes.normalize import InputReport
from scpalm.model.genes.vocabulary import Coverage
from scpalm.model.tasks.task import OutputSpec

NOTE_KEY = "scpalm"  # in uns


def note_of(
    model: tuple[str, str], coverage: Coverage, report: InputReport | None, metadata: Mapping[str, object]
) -> dict[str, object]:
    """The note of any answer; JSON. ``model``: name and version. ``metadata``: of the tasks."""
    return {
        "model": {"name": model[0], "version": model[1]},
        "coverage": coverage.as_dict(),
        "input": None if report is None else report.as_dict(),
        **metadata,
    }


def anndata_note(
    note: Mapping[str, object], outputs: Sequence[OutputSpec], keys: Mapping[str, str] | None = None
) -> dict[str, object]:
    """The note in ``uns["scpalm"]``: also where each output was written, and names of its columns.

    ``keys``: where outputs were written, by name, where that is not their own key.
    """
    written = {output.name: (keys or {}).get(output.name, output.key) for output in outputs}
    columns = {
        written[output.name]: list(output.columns)
        for output in outputs
        if output.columns is not None and output.placement == "obsm"
    }
    key = written[outputs[0].name]
    return {**note, "key": key, "keys": written, **({"columns": columns} if columns else {})}
