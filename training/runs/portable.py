"""The weights of a run as one file in half precision, in parts small enough to be sent one by one.

Optimizer states and the queue of stage 2 are left out: they would take three times the space of the weights. A stage
that goes on from such weights starts the optimizer again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load, save
from torch import Tensor

from scpalm.training.runs.run import Run, RunError

PARTS_FILE = "parts.json"
PART_BYTES = 16 * 2**20
# Smaller tensors, such as codes and statistics, stay float32.
_LEAST_HALF = 100_000
# The modules of each stage's checkpoint.
_MODULES = {
    "stage1": ("model",),
    "decoder": ("decoder",),
    "stage2": ("encoder", "decoder"),
    "views": ("head", "decoder"),
}
_KEPT = ("step", "ended", "planned", "codes_started", "revived")
_SEPARATOR = "//"
# The served decoder starts as that of stage 1 and takes its place.
_REPLACED = ("decoder.", "decoder_position", "head.")


@dataclass(frozen=True)
class Weights:
    """Weights of the stages of a run.

    Attributes:
        config: content of ``config.json``. states: of each stage, its modules and a few numbers.
    """

    config: dict[str, Any]
    states: dict[str, dict[str, Any]]


def weights_of(run: Run) -> Weights:
    """What a run's checkpoints hold, without what later steps and the bundle do not need."""
    states: dict[str, dict[str, Any]] = {}
    for stage, modules in _MODULES.items():
        if run.has_checkpoint(stage):
            loaded = run.load_checkpoint(stage)
            states[stage] = {name: loaded[name] for name in (*modules, *_KEPT) if name in loaded}
    if "decoder" in states and "stage1" in states:
        model = states["stage1"]["model"]
        states["stage1"]["model"] = {n: t for n, t in model.items() if not n.startswith(_REPLACED)}
    if states.get("stage2", {}).get("ended"):
        del states["stage2"]["decoder"]  # only training needs it
    return Weights(run.config(), states)


def restore_run(weights: Weights, run: Run) -> None:
    """Write a run that holds these weights. Raises RunError if there is a run already."""
    run.create(weights.config)
    for stage, state in weights.states.items():
        if stage == "stage1" and "decoder" in weights.states:
            served = weights.states["decoder"]["decoder"]
            state = state | {"model": state["model"] | {n: t for n, t in served.items() if n.startswith(_REPLACED)}}
        run.save_checkpoint(stage, state)


def write_parts(weights: Weights, folder: Path, part_bytes: int = PART_BYTES) -> list[Path]:
    """Write ``part-00`` and so on, and ``parts.json`` with their checksums; returns the files."""
    tensors: dict[str, Tensor] = {}
    numbers: dict[str, dict[str, Any]] = {}
    for stage, state in weights.states.items():
        numbers[stage] = {name: state[name] for name in _KEPT if name in state}
        for module in (name for name in state if name not in _KEPT):
            for name, value in state[module].items():
                _flatten(tensors, f"{stage}{_SEPARATOR}{module}{_SEPARATOR}{name}", value)
    metadata = {"config": json.dumps(weights.config), "numbers": json.dumps(numbers)}
    content = save({name: _stored(tensor) for name, tensor in tensors.items()}, metadata)
    folder.mkdir(parents=True, exist_ok=True)
    for old in folder.glob("part-*"):
        old.unlink()
    files, sums = [], {}
    for number, start in enumerate(range(0, len(content), part_bytes)):
        part = content[start : start + part_bytes]
        files.append(folder / f"part-{number:02d}")
        files[-1].write_bytes(part)
        sums[files[-1].name] = _sha256(part)
    described = {"sha256": _sha256(content), "bytes": len(content), "parts": sums}
    (folder / PARTS_FILE).write_text(json.dumps(described, indent=1))
    return [*files, folder / PARTS_FILE]


def read_parts(folder: Path) -> Weights:
    """Join and verify the parts. Raises RunError that names a missing or damaged file."""
    try:
        described = json.loads((folder / PARTS_FILE).read_text())
        parts, whole = described["parts"], described["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RunError(f"{folder / PARTS_FILE} cannot be read ({error!r}). Copy it again.") from error
    content = b""
    for name, expected in parts.items():
        try:
            part = (folder / Path(name).name).read_bytes()
        except OSError as error:
            raise RunError(f"{folder / name} cannot be read ({error}). Copy it again.") from error
        if _sha256(part) != expected:
            raise RunError(f"{folder / name} does not match its checksum. Copy it again.")
        content += part
    if _sha256(content) != whole:
        raise RunError(f"The parts in {folder} do not match the checksum of the whole. Copy them again.")
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])["__metadata__"]
    states: dict[str, dict[str, Any]] = json.loads(header["numbers"])
    for name, tensor in load(content).items():
        stage, module, *path = name.split(_SEPARATOR)
        target = states[stage].setdefault(module, {})
        for key in path[:-1]:
            target = target.setdefault(key, {})
        target[path[-1]] = tensor.float() if tensor.dtype == torch.float16 else tensor
    return Weights(json.loads(header["config"]), states)


def _flatten(tensors: dict[str, Tensor], name: str, value: Tensor | Mapping[str, Tensor]) -> None:
    if isinstance(value, Tensor):
        tensors[name] = value
        return
    for key, inner in value.items():  # extra state
        _flatten(tensors, f"{name}{_SEPARATOR}{key}", inner)


def _stored(tensor: Tensor) -> Tensor:
    tensor = tensor.detach().cpu().contiguous().clone()
    return tensor.half() if tensor.dtype == torch.float32 and tensor.numel() >= _LEAST_HALF else tensor


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
