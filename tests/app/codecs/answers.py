"""An answer to encode."""

from __future__ import annotations

import numpy as np

from scpalm.app.codecs.registry import Answer, Part
from scpalm.model.genes.normalize import InputReport
from scpalm.model.genes.vocabulary import Coverage


def answer_for(names: list[str], width: int = 4) -> Answer:
    values = np.random.default_rng(0).normal(size=(len(names), width)).astype(np.float32)
    coverage = Coverage(40, 38, 37, 30, 6, 2, ("NOT1", "NOT2"))
    report = InputReport("counts", "every value is a whole number")
    return Answer("mini", "1.0", names, [Part("embed", "X_scpalm", values)], coverage, report)
