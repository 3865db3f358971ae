"""`python -m tests.chaos.entry serve|worker --port 0`: scpalm processes with a device that only sleeps.

Environment variables:
    CHAOS_SLEEP: seconds per batch.
    CHAOS_HOLD: path of a file; batches wait while it exists.
    CHAOS_FAIL: path of a file; inference fails while it exists.
    CHAOS_SLOW: path of a file with more seconds per batch, read at every batch.
    CHAOS_WIRE: version of the message format, to stand for another release.
    CHAOS_CLOCK: path of a file with the offset of this process's wall clock in seconds, read at every use.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import numpy as np

# A cell with this value in its first gene kills the process that computes it.
POISON = 666.0
_real_time = time.time


def _off_clock() -> float:
    file = Path(os.environ["CHAOS_CLOCK"])
    return _real_time() + (float(file.read_text() or 0) if file.exists() else 0.0)


if "CHAOS_CLOCK" in os.environ:
    time.time = _off_clock

from scpalm.app.queue import wire  # noqa: E402
from scpalm.app.serving.opener import session_info  # noqa: E402
from scpalm.app.settings import Settings, load_settings  # noqa: E402
from scpalm.model.bundle import Bundle  # noqa: E402
from scpalm.model.errors import UserError  # noqa: E402
from scpalm.model.genes.rows import Rows  # noqa: E402
from scpalm.model.sessions.session import Encoded, SessionInfo, Speed, Tokens  # noqa: E402

wire.VERSION = int(os.environ.get("CHAOS_WIRE", wire.VERSION))


class SleepingSession:
    """Returns sums of each row instead of an embedding, after a fixed time."""

    def __init__(self, bundle: Bundle) -> None:
        self._info = session_info(bundle)
        self._seconds = float(os.environ.get("CHAOS_SLEEP", "0"))
        self._hold, self._fail, self._slow = (
            Path(os.environ.get(f"CHAOS_{name}", "/nowhere")) for name in ("HOLD", "FAIL", "SLOW")
        )

    @property
    def info(self) -> SessionInfo:
        return self._info

    def warm_up(self) -> Speed:
        return Speed(0.0)

    def encode(self, rows: Rows, *, tokens: bool | np.ndarray = True) -> Encoded:
        if rows.value.max(initial=0.0) > 9.0 and _is_poison(rows):
            os._exit(1)
        if self._fail.exists():
            raise RuntimeError("the device is on fire")
        time.sleep(self._seconds + (float(self._slow.read_text()) if self._slow.exists() else 0.0))
        while self._hold.exists():
            time.sleep(0.005)
        facts = np.zeros((len(rows), self._info.embedding_width), np.float32)
        facts[:, 0] = np.add.reduceat(rows.value, rows.indptr[:-1])
        facts[:, 1] = rows.lengths()
        codes = np.zeros((len(rows), self._info.num_tokens), np.int32)
        encoded = Tokens(facts[:, : self._info.cell_width], codes)
        return Encoded(rows, facts, facts[:, :1], self._info.num_components, encoded)

    def run(self, task: str, rows: Rows) -> np.ndarray:
        return self.encode(rows).embedding

    def impute(self, encoded: Encoded, genes: np.ndarray) -> np.ndarray:
        return np.zeros((len(encoded), len(genes)), np.float32)


def _is_poison(rows: Rows) -> bool:
    """Whether a cell has only one gene, as those of `cells(poison=True)` have."""
    return bool((rows.lengths() == 1).any())


def main() -> None:
    command, port = sys.argv[1], int(sys.argv[3])
    from scpalm.app.server import serve
    from scpalm.app.telemetry.logging import configure_logging

    configure_logging("text")

    def open_session(bundle: Bundle, settings: Settings) -> SleepingSession:
        return SleepingSession(bundle)

    try:
        serve(load_settings(port=port), open_session, worker=command == "worker")
    except UserError as error:  # as the command line does
        sys.exit(f"scpalm: {error}")


if __name__ == "__main__":
    main()
