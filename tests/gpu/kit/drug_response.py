"""Drug response on a device: the same as on the CPU, the same for a cell alone, and how fast."""

from __future__ import annotations

import time

import numpy as np

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import drug_response_of
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Session
from tests.gpu.kit.cells import repeated
from tests.gpu.kit.report import Report
from tests.gpu.kit.sessions import Opened

_DRUGS = 20
_SECONDS = 0.5


def check_drug_response(report: Report, opened: Opened, expected: Opened, bundle: Bundle, rows: Rows) -> None:
    """Add lines for parity with the CPU, for the bits of a cell alone, and for the rate."""
    name, head = f"{bundle.name}, {opened.name}", drug_response_of(bundle)
    panel, drugs = head.panel.only(rows), head.drugs.resolve([])
    reads_h = head.kernel is None
    one, other = (session.encode(panel, tokens=reads_h) for session in (expected.session, opened.session))
    device = _device_of(opened.session)

    def ask(start: int, stop: int, count: int = _DRUGS) -> np.ndarray:
        encoded = other.h_C if reads_h else other.embedding
        return head.predict(encoded[start:stop], panel.slice(start, stop), drugs[:count], device=device).ln_ic50

    whole = ask(0, len(panel))
    on_cpu = head.predict(one.h_C if reads_h else one.embedding, panel, drugs[:_DRUGS]).ln_ic50
    difference = float(np.nanmax(np.abs(whole - on_cpu)))
    note = "" if reads_h else f"this head reads genes, not h_C; computed on {device}"
    report.add("ic50_difference", f"{name}: largest difference of ln IC50", difference, "ln uM", note=note)
    if device == "cpu" or reads_h:
        return
    turned = Rows.concat([panel.slice(at, at + 1) for at in reversed(range(len(panel)))])
    backwards = head.predict(other.embedding[::-1], turned, drugs[:_DRUGS], device=device).ln_ic50[::-1]
    same = (backwards == whole).all(axis=1)
    same[0] &= np.array_equal(ask(0, 1)[0], whole[0])
    report.add("ic50_same_bits", f"{name}: cells with the same ln IC50 in another place", float(same.mean()), "share",
               wanted=None if opened.session.info.device == "cpu" else 1.0)  # fmt: skip
    _rate(report, name, bundle, panel, device)


def _rate(report: Report, name: str, bundle: Bundle, panel: Rows, device: str) -> None:
    head = drug_response_of(bundle)
    drugs, cells = head.drugs.resolve([]), repeated(panel, 4096 if device.startswith("cuda") else len(panel))
    embedding = np.zeros((len(cells), 1), np.float32)  # not read by this head
    for where in ("cpu", device):
        head.predict(embedding[:64], cells.slice(0, min(64, len(cells))), drugs, device=where)
        seconds: list[float] = []
        until = time.perf_counter() + _SECONDS
        while not seconds or time.perf_counter() < until:
            started = time.perf_counter()
            head.predict(embedding, cells, drugs, device=where)
            seconds.append(time.perf_counter() - started)
        report.add(
            "ic50_rate", f"{name}: ln IC50 of {len(drugs)} drugs on {where}", len(cells) / min(seconds), "cells/s"
        )


def _device_of(session: Session) -> str:
    """Where the head computes: PyTorch on the CPU, too, if the session does, so that a rehearsal runs the same code."""
    if session.info.runtime != "torch":
        return "cpu"
    return "cpu:0" if session.info.device == "cpu" else session.info.device
