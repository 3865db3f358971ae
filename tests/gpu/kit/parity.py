"""Whether a session computes the same as the CPU, and the same for a cell alone as with others."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.session import CARD_FILE
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Encoded, Session
from tests.gpu.kit.drug_response import check_drug_response
from tests.gpu.kit.report import Report
from tests.gpu.kit.sessions import Opened

COSINE_WANTED = 0.9999
_IMPUTED_GENES = 200


def check_parity(report: Report, opened: Opened, expected: Opened, bundle: Bundle, rows: Rows) -> None:
    """Add a line for each output."""
    one, other = expected.session.encode(rows), opened.session.encode(rows)
    name = f"{bundle.name}, {opened.name}"
    wanted = 0.999 if opened.session.info.device == "cpu" else 0.995
    codes = float((one.codes == other.codes).mean())
    report.add("codes_equal", f"{name}: equal codes", codes, "share", wanted=wanted)
    for what, a, b in (("embedding", one.embedding, other.embedding), ("h_C", one.h_C, other.h_C)):
        lowest = float(cosine(a, b).min())
        mean = float(cosine(a, b).mean())
        report.add(
            f"cosine_{what}", f"{name}: mean cosine of {what}", mean, f"lowest {lowest:.6f}", wanted=COSINE_WANTED
        )
    _imputed(report, name, (expected.session, one), (opened.session, other))
    if CARD_FILE in bundle.manifest["files"]:
        check_drug_response(report, opened, expected, bundle, rows)
    same = same_bits(opened.session, rows, other)
    report.add("same_bits", f"{name}: cells with the same bits alone and with others", same, "share", wanted=1.0)


def cosine(a: NDArray[np.float32], b: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of each row."""
    x, y = a.astype(np.float64), b.astype(np.float64)
    return (x * y).sum(1) / np.maximum(np.linalg.norm(x, axis=1) * np.linalg.norm(y, axis=1), 1e-30)


def _imputed(report: Report, name: str, one: tuple[Session, Encoded], other: tuple[Session, Encoded]) -> None:
    num_genes = one[0].info.num_genes
    genes = np.linspace(0, num_genes - 1, min(_IMPUTED_GENES, num_genes)).astype(np.int64)
    a, b = (session.impute(encoded, genes) for session, encoded in (one, other))
    largest = float(np.abs(a - b).max())
    similar = float(cosine(a.ravel()[None], b.ravel()[None])[0])
    report.add("cosine_imputed", f"{name}: cosine of imputed values", similar, f"largest difference {largest:.2g}",
               wanted=COSINE_WANTED)  # fmt: skip


def same_bits(session: Session, rows: Rows, whole: Encoded) -> float:
    """Share of cells with the same bits when computed alone, with a few others, and in another order with copies."""
    count = min(len(rows), 16)
    equal = np.ones(count, dtype=bool)
    for size in (1, 3, count):
        for start in range(0, count, size):
            stop = min(start + size, count)
            part = session.encode(rows.slice(start, stop))
            equal[start:stop] &= _equal(part, whole.slice(start, stop))
    backwards = Rows.concat([rows.slice(at, at + 1) for at in reversed(range(len(rows)))] + [rows])
    turned = session.encode(backwards)
    for at in range(count):
        last = len(rows) - 1 - at
        equal[at] &= bool(_equal(turned.slice(last, last + 1), whole.slice(at, at + 1))[0])
    return float(equal.mean())


def _equal(one: Encoded, other: Encoded) -> NDArray[np.bool_]:
    found = np.ones(len(one), dtype=bool)
    for a, b in ((one.embedding, other.embedding), (one.h_C, other.h_C), (one.codes, other.codes)):
        found &= (a == b).all(axis=1)
    return found
