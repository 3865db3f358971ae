"""The default session: ONNX Runtime."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.sessions.base import BucketedSession
from scpalm.model.sessions.session import Speed
from scpalm.model.sessions.shapes import LENGTHS, Padded, example

MODEL_FILE = "embed.onnx"
ENCODER_FILE = "encoder.onnx"
DECODER_FILE = "impute.onnx"
_Providers = list[str | tuple[str, dict[str, int]]]


class OnnxSession(BucketedSession):
    """Implements `Session` with ONNX Runtime. Raises BundleError if the graph is missing or does not load."""

    def __init__(self, bundle: Bundle, *, device: str = "auto", threads: int | None = None) -> None:
        self._providers, where = _providers(device)
        self._session = _load(bundle.file(MODEL_FILE), self._providers)
        self._encoder = _load(bundle.file(ENCODER_FILE), self._providers)
        if where != "cpu" and self._session.get_providers()[0] != "CUDAExecutionProvider":
            # Without a driver, the GPU build of ONNX Runtime falls back to the CPU silently.
            if device != "auto":
                raise ValueError(f"ONNX Runtime cannot open device '{device}'. Check the NVIDIA driver, or use cpu.")
            where = "cpu"
        super().__init__(bundle, runtime="onnx", device=where, threads=threads)
        # Many services never impute, so the decoder is loaded on first use.
        self._decoder: ort.InferenceSession | None = None
        self._opening = threading.Lock()

    def warm_up(self) -> Speed:
        speed = super().warm_up()
        if self.info.device == "cpu":
            # Release the buffers of the largest shapes: most services are idle at first, and the arena grows again
            # quickly when they are needed.
            options = ort.RunOptions()
            options.add_run_config_entry("memory.enable_memory_arena_shrinkage", "cpu:0")
            self._session.run(["embedding"], example(LENGTHS[0], 1, self._config.components).feed(), options)
        return speed

    def _run(self, session: ort.InferenceSession, names: list[str], feed: Mapping[str, NDArray[np.generic]]) -> Any:
        if self.info.device == "cpu":
            return session.run(names, feed)
        return run_bound(session, names, feed, self.info.device)

    def _embed_padded(self, batch: Padded) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        embedding, log_length = self._run(self._session, ["embedding", "log_length"], batch.feed())
        return embedding, log_length

    def _encode_padded(
        self, f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> tuple[NDArray[np.float32], NDArray[np.int32]]:
        h, codes = self._run(self._encoder, ["h_C", "codes"], {"f": f, "log_length": log_length})
        return h, codes

    def _decode_padded(
        self, codes: NDArray[np.int32], f: NDArray[np.float32], log_length: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        with self._opening:
            if self._decoder is None:
                self._decoder = _load(self._bundle.file(DECODER_FILE), self._providers)
        feed = {"codes": codes, "f": f, "log_length": log_length}
        decoded: NDArray[np.float32] = self._run(self._decoder, ["decoded"], feed)[0]
        return decoded


def run_bound(
    session: ort.InferenceSession, names: list[str], feed: Mapping[str, NDArray[np.generic]], device: str
) -> list[NDArray[np.generic]]:
    """`InferenceSession.run` with inputs and outputs bound to memory of a device, ``cpu`` or ``cuda:n``.

    Copies go to and from the device once, not at each part of the graph that runs on the CPU.
    """
    kind, _, number = device.partition(":")
    binding = session.io_binding()
    for name, array in feed.items():
        value = ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array), kind, int(number or 0))
        binding.bind_ortvalue_input(name, value)
    for name in names:
        binding.bind_output(name, kind, int(number or 0))
    session.run_with_iobinding(binding)
    found: list[NDArray[np.generic]] = binding.copy_outputs_to_cpu()
    return found


def _load(path: Path, providers: _Providers) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = 1
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    try:
        return ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # the exceptions of onnxruntime have no common base class
        raise BundleError(f"{path} does not load: {error}. Export the bundle again.") from error


def _providers(device: str) -> tuple[_Providers, str]:
    """Execution providers for ``auto``, ``cpu``, ``cuda`` or ``cuda:n``. Raises ValueError if it is not available."""
    has_gpu = "CUDAExecutionProvider" in ort.get_available_providers()
    if device == "cpu" or (device == "auto" and not has_gpu):
        return ["CPUExecutionProvider"], "cpu"
    name, _, number = device.partition(":")
    if name not in ("auto", "cuda") or (number and not number.isdigit()):
        raise ValueError(f"Unknown device '{device}': choose auto, cpu, cuda or cuda:n.")
    if not has_gpu:
        raise ValueError(f"Device '{device}' needs onnxruntime-gpu and an NVIDIA driver. Use cpu or auto.")
    index = int(number or 0)
    return [("CUDAExecutionProvider", {"device_id": index}), "CPUExecutionProvider"], f"cuda:{index}"
