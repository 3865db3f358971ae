"""One call of a method of the engine or of a client."""

from __future__ import annotations

from dataclasses import dataclass, field

from scpalm.model.io.cells import Source
from scpalm.model.io.labels import LabelledBy
from scpalm.model.spec import RequestSpec


@dataclass(frozen=True, eq=False)
class Call:
    """One call of a method.

    Attributes:
        spec: tasks and options.
        key_added: replaces the default key.
        copy: whether to return a modified copy and leave the AnnData unchanged.
        reference: labelled cells, for `annotate`.
        reference_by: how to read the labelled cells.
    """

    spec: RequestSpec
    key_added: str | None = None
    copy: bool = False
    reference: Source | None = None
    reference_by: LabelledBy = field(default_factory=LabelledBy)
