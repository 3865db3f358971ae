"""Export ONNX graphs: sparse padded input, free batch size and length, weights in ``weights.safetensors``.

Weights are exported as graph inputs, then turned into initializers that point into the safetensors file. Names stay
those of the network, nothing is folded or copied, and the graphs of all tasks share the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TypedDict

import onnx
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from scpalm.model.network.decoder import TokenDecoder
from scpalm.model.network.folded import INPUTS, OUTPUTS, InferenceNetwork
from scpalm.model.network.read_out import EmbeddingNetwork
from scpalm.model.sessions.shapes import example
from scpalm.model.sessions.torchscript import INT8_SCALE

OPSET = 20
# Free axes of each input, by its name.
_Shapes = dict[str, dict[int, torch.export.Dim]]
_ELEMENT = {"F16": TensorProto.FLOAT16, "F32": TensorProto.FLOAT, "I8": TensorProto.INT8, "I16": TensorProto.INT16}


class _Entry(TypedDict):
    """One tensor in the header of a safetensors file; offsets are relative to the data."""

    dtype: str
    shape: list[int]
    data_offsets: tuple[int, int]


class _WithWeights(nn.Module):
    """A network as a function of its inputs and its weights."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self._network = (network,)  # in a tuple: its parameters must not be captured

    def forward(self, inputs: tuple[Tensor, ...], weights: dict[str, Tensor]) -> Tensor | tuple[Tensor, ...]:
        out: Tensor | tuple[Tensor, ...] = torch.func.functional_call(self._network[0], weights, inputs)
        return out


def export_embedding(network: EmbeddingNetwork, weights: Path, out: Path) -> None:
    """Write ``out`` in the folder of ``weights``, which holds every tensor of the network by name."""
    batch = example(256, 2, len(network.basis.scale))
    inputs = tuple(torch.from_numpy(array) for array in batch.feed().values())
    cell = {0: torch.export.Dim("cells"), 1: torch.export.Dim("length")}
    shapes: _Shapes = {name: {} for name in batch.feed()} | {"gene_index": cell, "value": cell}
    _export(network, _Signature(inputs, shapes, ["embedding", "log_length"]), weights, out)


def export_encoder(network: InferenceNetwork, num_components: int, weights: Path, out: Path) -> None:
    """Write the graph of h_C and codes, from f ``[cells, R]`` and log length ``[cells, 1]``; as `export_embedding`."""
    inputs = torch.zeros(2, num_components), torch.zeros(2, 1)
    cells = {0: torch.export.Dim("cells")}
    _export(network, _Signature(inputs, dict.fromkeys(INPUTS, cells), list(OUTPUTS)), weights, out)


def export_decoder(decoder: TokenDecoder, num_components: int, weights: Path, out: Path) -> None:
    """Write the graph of imputation, as `export_embedding`.

    Codes ``[cells, N]``, f ``[cells, R]`` and log length ``[cells, 1]`` -> tokens ``[cells, N, D]``.
    """
    codes = torch.zeros((2, len(decoder.decoder_position)), dtype=torch.int32)
    inputs = codes, torch.zeros(2, num_components), torch.zeros(2, 1)
    cells = {0: torch.export.Dim("cells")}
    _export(decoder, _Signature(inputs, dict.fromkeys(("codes", *INPUTS), cells), ["decoded"]), weights, out)


@dataclass(frozen=True)
class _Signature:
    """Example inputs, their free axes by name, and the names of the outputs."""

    inputs: tuple[Tensor, ...]
    shapes: _Shapes
    outputs: list[str]


def _export(network: nn.Module, signature: _Signature, weights: Path, out: Path) -> None:
    state = {name: tensor.detach() for name, tensor in network.state_dict().items()}
    program = torch.onnx.export(
        _WithWeights(network).eval(),
        (signature.inputs,),
        kwargs={"weights": state},
        input_names=[*signature.shapes, *state],
        output_names=signature.outputs,
        dynamic_shapes={"inputs": tuple(signature.shapes.values()), "weights": dict.fromkeys(state)},
        opset_version=OPSET,
        dynamo=True,
        external_data=False,
        verbose=False,
    )
    assert program is not None
    model = program.model_proto
    _move_weights(model, list(state), weights)
    onnx.save(model, str(out))
    onnx.checker.check_model(str(out))


def _move_weights(model: onnx.ModelProto, names: list[str], weights: Path) -> None:
    layout, start = _safetensors_layout(weights)
    graph = model.graph
    kept = [value for value in graph.input if value.name not in names]
    used = {name for node in graph.node for name in node.input}
    casts = []
    for name in names:
        if name not in used:
            continue
        kind = layout[name]["dtype"]
        kept_as = name + {"F32": "", "I16": "", "F16": ".half", "I8": ".int8"}[kind]
        graph.initializer.append(_outside(kept_as, layout[name], start, weights.name))
        # The cast is folded into a float32 constant when the session opens.
        if kind == "F16":
            casts.append(helper.make_node("Cast", [kept_as], [name], to=TensorProto.FLOAT, name=f"cast.{name}"))
        elif kind == "I8":
            scale = name + INT8_SCALE
            graph.initializer.append(_outside(scale, layout[scale], start, weights.name))
            casts.append(helper.make_node("DequantizeLinear", [kept_as, scale], [name], axis=0, name=f"scale.{name}"))
    nodes = [*casts, *graph.node]
    for node in nodes:  # the exporter's notes about Python source are nine tenths of the file
        del node.metadata_props[:]
    del graph.node[:], graph.input[:]
    graph.node.extend(nodes)
    graph.input.extend(kept)


def _outside(name: str, entry: _Entry, start: int, file: str) -> TensorProto:
    """An initializer that points into the safetensors file."""
    first, last = entry["data_offsets"]
    tensor = TensorProto(name=name, data_type=_ELEMENT[entry["dtype"]])
    tensor.dims.extend(entry["shape"])
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", file), ("offset", start + first), ("length", last - first)):
        tensor.external_data.add(key=key, value=str(value))
    return tensor


def _safetensors_layout(path: Path) -> tuple[dict[str, _Entry], int]:
    """The header, and the offset at which the data starts."""
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        return json.loads(file.read(size)), 8 + size
