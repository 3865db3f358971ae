"""The session protocol: rows -> outputs on one device. It has three runtimes: ONNX Runtime, PyTorch and TorchScript."""

from __future__ import annotations

import importlib.util
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows

CPU_BATCH_CELLS = 256
# What an NVIDIA driver provides, on Linux and in WSL.
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg")


@dataclass(frozen=True)
class Speed:
    """What `Session.warm_up` measures.

    Attributes:
        cells_per_second: with tokens; 0 if unknown.
        batch_cells: cells of the smallest batch with 95 % of the best rate. A CPU has nearly the same rate at any size.
    """

    cells_per_second: float
    batch_cells: int = CPU_BATCH_CELLS


@dataclass(frozen=True)
class SessionInfo:
    """Device and sizes of a session.

    Attributes:
        runtime: ``onnx``, ``torch`` or ``torchscript``.
        device: ``cpu`` or ``cuda:n``.
        embedding_width: width of the served embedding, R + H.
        num_components: R, width of f, the first part of the embedding.
        cell_width: D, width of h_C.
        num_tokens: N.
        num_codes: K.
        num_genes: G.
    """

    runtime: str
    device: str
    embedding_width: int
    num_components: int
    cell_width: int
    num_tokens: int
    num_codes: int
    num_genes: int


@dataclass(frozen=True, eq=False)
class Tokens:
    """Output of the token encoders for B cells: ``h_C [B, D]`` float32 and codes ``[B, N]`` int32."""

    h_C: NDArray[np.float32]
    codes: NDArray[np.int32]


@dataclass(frozen=True, eq=False)
class Encoded:
    """Output of the network for B cells. Every task starts from it.

    Attributes:
        rows: the input.
        embedding: ``[B, R + H]`` float32: f and the view head's output, each of length 1.
        log_length: ``[B, 1]`` float32: the logarithm of the length of z.
        num_components: R.
        tokens: None if the encoders did not run.
    """

    rows: Rows
    embedding: NDArray[np.float32]
    log_length: NDArray[np.float32]
    num_components: int
    tokens: Tokens | None

    def __len__(self) -> int:
        return len(self.embedding)

    @property
    def f(self) -> NDArray[np.float32]:
        """``[B, R]`` the linear read-out."""
        return self.embedding[:, : self.num_components]

    @property
    def h_C(self) -> NDArray[np.float32]:
        """``[B, D]`` the cell token. Raises RuntimeError if the encoders did not run."""
        return self._tokens().h_C

    @property
    def codes(self) -> NDArray[np.int32]:
        """``[B, N]`` code index of each token. Raises RuntimeError if the encoders did not run."""
        return self._tokens().codes

    def _tokens(self) -> Tokens:
        if self.tokens is None:
            raise RuntimeError("the cells were encoded without tokens: the task must declare needs_tokens")
        return self.tokens

    def slice(self, start: int, stop: int) -> Encoded:
        """Cells ``start`` to ``stop``, as views."""
        tokens = self.tokens and Tokens(self.tokens.h_C[start:stop], self.tokens.codes[start:stop])
        part = slice(start, stop)
        return Encoded(
            self.rows.slice(start, stop), self.embedding[part], self.log_length[part], self.num_components, tokens
        )


class Session(Protocol):
    """Runs the network on rows and returns one output row per cell, in order.

    The output of a cell does not depend on the other cells in the call, to the bit. Any call may raise
    DeviceLostError.
    """

    @property
    def info(self) -> SessionInfo: ...

    def encode(self, rows: Rows, *, tokens: bool | NDArray[np.bool_] = True) -> Encoded:
        """Run the network once.

        ``tokens``: whether h_C and codes are needed, for all cells or for each ``[B]``; those of the others are 0. The
        embedding alone takes an eighth of the time (docs/explain/measurements.md).
        """
        ...

    def impute(self, encoded: Encoded, genes: NDArray[np.int64]) -> NDArray[np.float32]:
        """Cells encoded with tokens -> log1p CP10K ``[B, len(genes)]``; ``genes`` are vocabulary positions.

        Raises BundleError if the bundle has no decoder.
        """
        ...

    def warm_up(self) -> Speed:
        """Run every fixed shape once, so that no request has to, and measure the speed."""
        ...


def open_session(bundle: Bundle, *, runtime: str = "auto", device: str = "auto", threads: int | None = None) -> Session:
    """Open a bundle on a device.

    Args:
        bundle: the model.
        runtime: ``onnx``, ``torch``, ``torchscript``, or ``auto``: PyTorch on a GPU if it is installed, else ONNX.
        device: ``auto``, ``cpu``, ``cuda`` or ``cuda:n``.
        threads: number of CPU threads; default: the cores available to this process. ``torch`` on a GPU needs none.

    Raises BundleError if the bundle lacks the runtime's file, ValueError for an unknown runtime or device,
    ModuleNotFoundError if the runtime is not installed.
    """
    if runtime == "auto":
        runtime = "torch" if device != "cpu" and _torch_finds_gpu() else "onnx"
    if runtime == "onnx":
        from scpalm.model.sessions.onnx import OnnxSession

        return OnnxSession(bundle, device=device, threads=threads)
    if runtime == "torch":
        from scpalm.model.sessions.cuda import CudaSession

        return CudaSession(bundle, device=device)
    if runtime == "torchscript":
        from scpalm.model.sessions.torchscript import TorchScriptSession

        return TorchScriptSession(bundle, device=device, threads=threads)
    raise ValueError(f"Unknown runtime '{runtime}': choose auto, onnx, torch or torchscript.")


def _torch_finds_gpu() -> bool:
    """Whether PyTorch is installed and can use a GPU. Imports it only if the machine has an NVIDIA driver."""
    if not any(Path(path).exists() for path in _DRIVERS) and shutil.which("nvidia-smi") is None:
        return False
    if importlib.util.find_spec("torch") is None:
        return False
    from scpalm.model.sessions.torchscript import torch_device

    return torch_device("auto").type == "cuda"
