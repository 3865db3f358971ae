"""Opens the sessions that the kit compares."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

from scpalm.model.bundle import Bundle
from scpalm.model.genes.rows import Rows
from scpalm.model.sessions.session import Session


@dataclass(frozen=True)
class Opened:
    """A session with its name in the table."""

    name: str
    session: Session


@dataclass(frozen=True)
class Resident:
    """A function that encodes ``num_cells`` cells which are in device memory, and leaves the results there."""

    run: Callable[[], None]
    num_cells: int


def has_graphs(bundle: Bundle) -> bool:
    """Whether ONNX Runtime can open the bundle."""
    return "encoder.onnx" in bundle.manifest["files"]


def reference(bundle: Bundle) -> Opened:
    """What the others are compared with: the CPU, in float32."""
    if has_graphs(bundle):
        from scpalm.model.sessions.onnx import OnnxSession

        return Opened("ONNX Runtime, CPU", OnnxSession(bundle, device="cpu"))
    from scpalm.model.sessions.torchscript import TorchScriptSession

    return Opened("TorchScript, CPU", TorchScriptSession(bundle, device="cpu"))


def torch_session(bundle: Bundle, device: torch.device) -> Opened:
    """The session that is made for GPUs. It runs on the CPU, too."""
    from scpalm.model.sessions.cuda import CudaSession

    return Opened(f"torch, {device.type}", CudaSession(bundle, device=str(device)))


def onnx_session(bundle: Bundle, device: torch.device) -> Opened:
    """ONNX Runtime on the device. Raises ValueError if its build has no CUDA."""
    from scpalm.model.sessions.onnx import OnnxSession

    if not has_graphs(bundle):
        raise ValueError(f"{bundle.name} has no ONNX graphs")
    return Opened(f"ONNX Runtime, {device.type}", OnnxSession(bundle, device=str(device)))


def resident_run(session: Session, rows: Rows) -> Resident | None:
    """Encode a block of the torch session that is in device memory, as often as the rows fill it.

    None for other sessions, and for fewer rows than a block has. It uses the private parts of the session, because
    nothing but this measurement leaves results on the device.
    """
    from scpalm.model.sessions.cuda import CudaSession
    from scpalm.model.sessions.staging import blocks, order_by_gene_set

    if not isinstance(session, CudaSession) or len(rows) < session.shape.cells:
        return None
    block = next(blocks(rows, order_by_gene_set(rows), session.shape))
    correction = session._corrections.of(rows.gene_sets[block.gene_set])
    slot, read_out, encoder = session._slots[0], session._read_out, session._encoder
    times = len(rows) // (block.stop - block.start)
    with session._on_device():
        slot.send(rows, block)

    def run() -> None:
        with session._on_device():
            for _ in range(times):
                read_out.run(slot, correction)
                encoder.f.copy_(read_out.embedding[:, : session.info.num_components])
                encoder.log_length.copy_(read_out.log_length)
                encoder.run()

    return Resident(run, times * (block.stop - block.start))
