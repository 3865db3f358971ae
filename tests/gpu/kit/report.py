"""Lines of the kit's table: printed as they come, and kept as JSON."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType


@dataclass(frozen=True)
class Line:
    """One result.

    Attributes:
        section: of the kit. key: machine-readable kind. what: text for readers.
        measured: the result; None for a note. unit: of all three values.
        predicted: what was computed before the measurement. wanted: the least that is wanted.
        note: a remark.
    """

    section: str
    key: str
    what: str
    measured: float | None
    unit: str = ""
    predicted: float | None = None
    wanted: float | None = None
    note: str = ""


class SectionTimeoutError(Exception):
    """A section took longer than it may."""


class Report:
    """Collects lines; writes the JSON after every section, so that a killed run keeps its results.

    Attributes:
        lines: what was measured. failures: section -> error. facts: about the machine and the run.
    """

    def __init__(self, file: Path | None, *, minutes: float, facts: dict[str, object]) -> None:
        self._file = file
        self._started = time.monotonic()
        self._ends = self._started + 60 * minutes
        self.facts = facts
        self.lines: list[Line] = []
        self.failures: dict[str, str] = {}
        self._section = ""
        print("| section | what | measured | predicted | wanted | unit, note |\n|---|---|---|---|---|---|", flush=True)

    @property
    def seconds_left(self) -> float:
        """Until the whole run must end."""
        return self._ends - time.monotonic()

    def add(
        self,
        key: str,
        what: str,
        measured: float | None,
        unit: str = "",
        *,
        predicted: float | None = None,
        wanted: float | None = None,
        note: str = "",
    ) -> None:
        """Print and keep a line."""
        line = Line(self._section, key, what, measured, unit, predicted, wanted, note)
        self.lines.append(line)
        missed = measured is not None and wanted is not None and measured < wanted
        shown = " | ".join(_text(value) for value in (measured, predicted, wanted))
        remark = "; ".join(text for text in (unit, note, "below what is wanted" if missed else "") if text)
        print(f"| {line.section} | {what} | {shown} | {remark} |", flush=True)

    def run(self, name: str, seconds: float, section: Callable[[], None]) -> None:
        """Run a section with a time limit. Its failure is noted and does not end the run."""
        self._section = name
        limit = min(seconds, self.seconds_left)
        if limit < 1:
            self._fail(name, "skipped: the minutes are over")
            return
        before = signal.signal(signal.SIGALRM, _raise_timeout)
        signal.setitimer(signal.ITIMER_REAL, limit)
        try:
            section()
        except SectionTimeoutError:
            self._fail(name, f"stopped after {limit:.0f} s")
        except Exception as error:  # whatever fails on a machine that was never seen
            self._fail(name, f"{type(error).__name__}: {error}")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)
            self.write()

    def end_sections(self) -> None:
        """What follows concerns the whole run."""
        self._section = "all"

    def _fail(self, name: str, why: str) -> None:
        self.failures[name] = why
        print(f"| {name} | **failed** | - | - | - | {' '.join(why.split())[:300]} |", flush=True)
        self.write()

    def write(self) -> None:
        """Write the JSON, if a file was asked for."""
        if self._file is None:
            return
        content = {
            "format": 1,
            **self.facts,
            "seconds": round(time.monotonic() - self._started, 1),
            "failures": self.failures,
            "lines": [asdict(line) for line in self.lines],
        }
        partial = self._file.with_name(self._file.name + ".partial")
        partial.write_text(json.dumps(content, indent=1) + "\n")
        partial.replace(self._file)


def _raise_timeout(number: int, frame: FrameType | None) -> None:
    raise SectionTimeoutError


def _text(value: float | None) -> str:
    if value is None or value != value:  # NaN: a prediction from a ceiling that was not measured
        return "-"
    if value and (abs(value) < 0.1 or abs(value) >= 1e6):
        return f"{value:.3g}"
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.5g}"
