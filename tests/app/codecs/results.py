"""A result to encode."""

from __future__ import annotations

import numpy as np

from scpalm.app.codecs.result import OutputValues, Result
from scpalm.model.genes.matching.alignment import Coverage
from scpalm.model.genes.report import InputReport
from scpalm.model.output.note import note_of
from scpalm.model.tasks.task import OutputSpec


def result_for(names: list[str], width: int = 4) -> Result:
    values = np.random.default_rng(0).normal(size=(len(names), width)).astype(np.float32)
    coverage = Coverage(40, 38, 37, 30, 6, 2, unmatched=("NOT1", "NOT2"))
    note = note_of(("mini", "1.0", "abc"), coverage, InputReport("counts", "every value is a whole number"), {})
    return Result(names, (OutputValues(OutputSpec("embed", "X_scpalm", width), values),), note)
