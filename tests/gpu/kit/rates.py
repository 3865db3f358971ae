"""Cells per second of a session by shape, with what the ceilings of the device allow."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from tests.gpu.kit.ceilings import seconds_of
from tests.gpu.kit.cells import repeated
from tests.gpu.kit.flop import embedding_flop, token_flop
from tests.gpu.kit.report import Report
from tests.gpu.kit.sessions import Opened, resident_run

# A gene of a cell on its way to the device: index and value.
BYTES_PER_ENTRY = 8


@dataclass(frozen=True)
class Shapes:
    """What is measured: numbers of cells, ascending, and cells by their number of expressed genes."""

    num_cells: tuple[int, ...]
    rows: dict[int, Rows]
    seconds: float


@dataclass(frozen=True)
class Limits:
    """Ceilings of a device: FLOP/s of a matrix product, and bytes per second from pinned host memory."""

    flop_rate: float
    transfer_rate: float

    def cells_per_second(self, flop: float, num_bytes: float) -> float:
        """The most that is possible if computation and copies overlap."""
        return min(self.flop_rate / flop, self.transfer_rate / num_bytes)

    def share(self, rate: float, flop: float) -> str:
        """The FLOP/s of a rate relative to the matrix product, as text."""
        return f"{rate * flop / self.flop_rate:.1%} of the matrix product"


def measure_rates(
    report: Report, opened: Opened, bundle: Bundle, shapes: Shapes, limits: Limits, wanted: dict[str, float]
) -> None:
    """Add a line per shape. ``wanted``: rates by key; for the largest batch of 1,000 genes."""
    device = torch.device(opened.session.info.device)
    for expressed, rows in shapes.rows.items():
        flop = embedding_flop(bundle, rows) + token_flop(bundle)
        num_bytes = BYTES_PER_ENTRY * float(rows.lengths().mean())
        rate = 0.0
        for count in shapes.num_cells:
            if rate and count / rate > shapes.seconds:
                break
            part = repeated(rows, count)
            name = f"{bundle.name}, {opened.name}: {count:,} cells of {expressed:,} genes"
            seconds = seconds_of(lambda part=part: opened.session.encode(part), device, most_seconds=shapes.seconds)  # type: ignore[misc]
            rate = count / seconds
            last = expressed == 1000 and count == shapes.num_cells[-1]
            report.add(
                "cells_per_second_from_host",
                f"{name}, from the host",
                rate,
                "cells/s",
                predicted=limits.cells_per_second(flop, num_bytes),
                wanted=wanted.get("from_host") if last else None,
                note=limits.share(rate, flop),
            )
            _resident(report, opened, name, part, (flop, limits, wanted.get("resident") if last else None))
    _without_tokens(report, opened, bundle, shapes, limits)


def _resident(
    report: Report, opened: Opened, name: str, part: Rows, expected: tuple[float, Limits, float | None]
) -> None:
    resident = resident_run(opened.session, part)
    if resident is None:
        return
    flop, limits, wanted = expected
    device = torch.device(opened.session.info.device)
    rate = resident.num_cells / seconds_of(resident.run, device, most_seconds=2.0)
    report.add(
        "cells_per_second_resident",
        f"{name}, in device memory",
        rate,
        "cells/s",
        predicted=limits.flop_rate / flop,
        wanted=None if wanted is None else wanted * limits.flop_rate / flop,
        note=limits.share(rate, flop),
    )


def _without_tokens(report: Report, opened: Opened, bundle: Bundle, shapes: Shapes, limits: Limits) -> None:
    expressed, rows = next(iter(shapes.rows.items()))
    part = repeated(rows, shapes.num_cells[-1])
    device = torch.device(opened.session.info.device)
    seconds = seconds_of(
        lambda: opened.session.encode(part, tokens=False), device, repeats=3, most_seconds=shapes.seconds
    )
    report.add(
        "cells_per_second_embedding",
        f"{bundle.name}, {opened.name}: {len(part):,} cells of {expressed:,} genes, embedding alone",
        len(part) / seconds,
        "cells/s",
        predicted=limits.cells_per_second(embedding_flop(bundle, rows), BYTES_PER_ENTRY * float(rows.lengths().mean())),
    )
