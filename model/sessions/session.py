"""The session protocol: rows -> outputs on one device. It has two runtimes; ONNX Runtime is the default."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows


@dataclass(frozen=True)
class SessionInfo:
    """Device and sizes of a session.

    Attributes:
        runtime: ``onnx`` or ``torchscript``.
        device: ``cpu`` or ``cuda:n``.
        embedding_width: D.
        num_tokens: N.
        num_codes: K.
        num_genes: G.
    """

    runtime: str
    device: str
    embedding_width: int
    num_tokens: int
    num_codes: int
    num_genes: int


@dataclass(frozen=True, eq=False)
class Encoded:
    """Output of the network for B cells. Every task starts from it.

    Attributes:
        embedding: h_C ``[B, D]`` float32.
        codes: code index of each token ``[B, N]`` int32.
        rows: the input.
    """

    embedding: NDArray[np.float32]
    codes: NDArray[np.int32]
    rows: Rows

    def __len__(self) -> int:
        return len(self.codes)

    def slice(self, start: int, stop: int) -> Encoded:
        """Cells ``start`` to ``stop``, as views."""
        return Encoded(self.embedding[start:stop], self.codes[start:stop], self.rows.slice(start, stop))


class Session(Protocol):
    """Runs the network on rows and returns one output row per cell, in order.

    The output of a cell is the same, to the bit, whatever other cells are in the call.
    """

    @property
    def info(self) -> SessionInfo: ...

    def encode(self, rows: Rows) -> Encoded:
        """Run the network once: embedding and codes of each cell."""
        ...

    def impute(self, codes: NDArray[np.int32], genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Codes ``[B, N]`` -> log1p CP10K ``[B, len(genes)]``; ``genes`` are vocabulary positions.

        Raises BundleError if the bundle has no decoder.
        """
        ...

    def warm_up(self) -> float:
        """Run every fixed shape once, so that no request has to. Returns cells per second, 0 if unknown."""
        ...


def open_session(bundle: Bundle, *, runtime: str = "auto", device: str = "auto", threads: int | None = None) -> Session:
    """Open a bundle on a device.

    Args:
        bundle: the model.
        runtime: ``onnx``, ``torchscript``, or ``auto`` for ONNX.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``.
        threads: number of CPU threads; default: the cores available to this process.

    Raises BundleError if the bundle lacks the runtime's file, ValueError for an unknown runtime or device,
    ModuleNotFoundError if the runtime is not installed.
    """
    if runtime in ("auto", "onnx"):
        from scpalm.model.sessions.onnx import OnnxSession

        return OnnxSession(bundle, device=device, threads=threads)
    if runtime == "torchscript":
        from scpalm.model.sessions.torchscript import TorchScriptSession

        return TorchScriptSession(bundle, device=device, threads=threads)
    raise ValueError(f"Unknown runtime '{runtime}': choose auto, onnx or torchscript.")
