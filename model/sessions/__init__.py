"""Sessions: rows -> outputs on one device. One contract, two runtimes (ONNX Runtime is the default)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from model.bundle import Bundle
from model.rows import Rows

Task = Literal["embed", "pathways"]


@dataclass(frozen=True)
class SessionInfo:
    """What a session serves.

    Attributes:
        runtime: ``onnx`` or ``torchscript``. device: ``cpu`` or ``cuda:n``.
        embedding_width: D. num_tokens: N. num_codes: K. num_genes: G.
    """

    runtime: str
    device: str
    embedding_width: int
    num_tokens: int
    num_codes: int
    num_genes: int


class Session(Protocol):
    """Rows in, one output row per cell back, in order. The same cell gives the same bits in any company."""

    @property
    def info(self) -> SessionInfo: ...

    def run(self, task: Task, rows: Rows) -> NDArray[np.float32] | NDArray[np.int32]:
        """``embed``: h_C ``[B, D]`` float32. ``pathways``: code index of each token ``[B, N]`` int32."""
        ...

    def warm_up(self) -> None:
        """Run every fixed shape once, so that no request pays for it."""
        ...


def open_session(bundle: Bundle, *, runtime: str = "onnx", device: str = "auto", threads: int | None = None) -> Session:
    """Open a bundle on a device; ``threads`` defaults to the cores this process may use.

    Raises BundleError when the bundle lacks the runtime's file, ValueError for an unknown runtime or device.
    """
    if runtime == "onnx":
        from model.sessions.onnx import OnnxSession

        return OnnxSession(bundle, device=device, threads=threads)
    if runtime == "torchscript":
        from model.sessions.torchscript import TorchScriptSession

        return TorchScriptSession(bundle, device=device, threads=threads)
    raise ValueError(f"Unknown runtime '{runtime}': choose onnx or torchscript.")
