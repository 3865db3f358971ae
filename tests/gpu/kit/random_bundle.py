"""A bundle of any preset with random weights, made in seconds and without the packages of training.

Genes, components and their means come from another bundle, so cells get realistic inputs. The ONNX graphs need
onnxscript and are left out without it; the PyTorch sessions read the weights alone.

    python -m tests.gpu.kit.random_bundle FOLDER [--preset base]
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from scpalm.model.bundle import FORMAT_VERSION, Bundle, write_manifest
from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import PRESETS, NetworkConfig, preset
from scpalm.model.network.decoder import CellDecoder, TokenDecoder
from scpalm.model.network.embedding import SparseCells
from scpalm.model.network.folded import InferenceNetwork, fold
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import EmbeddingNetwork, LinearReadOut
from scpalm.model.read_out.basis import Basis
from tests.gpu.kit.cells import draw

WEIGHTS_FILE = "weights.safetensors"
_CALIBRATION_CELLS = 64


def basis_of(bundle: Bundle) -> Basis:
    """The components of a bundle."""
    with safe_open(bundle.file(WEIGHTS_FILE), framework="numpy") as tensors:
        names = [name for name in tensors.keys() if name.startswith("basis.")]  # noqa: SIM118 -- not iterable
        return Basis.from_tensors({name: tensors.get_tensor(name) for name in names})


def has_exporter() -> bool:
    """Whether ONNX graphs can be written."""
    try:
        import onnxscript  # noqa: F401
    except ImportError:
        return False
    return True


def write_random_bundle(
    folder: Path, name: str, source: Bundle, *, smaller: Mapping[str, int] | None = None, graphs: bool = True
) -> Bundle:
    """Write a bundle of the preset ``name`` with the genes and components of ``source``.

    ``smaller`` replaces sizes of the preset. ``graphs``: write the ONNX graphs if onnxscript is installed.
    """
    basis = basis_of(source)
    config = replace(preset(name, len(source.vocabulary)), **(smaller or {}))  # type: ignore[arg-type]
    if basis.width < config.components:
        raise ValueError(f"{source.name} has {basis.width} components, but {name} needs {config.components}")
    torch.manual_seed(0)
    basis = basis.select(config.components)
    stage1, cells, decoder = PathwayAutoencoder(config), CellEncoder(config), CellDecoder(config)
    assert isinstance(stage1.embedding, LinearReadOut)
    stage1.embedding.load(basis)
    _calibrate(stage1, basis)
    _awaken(cells)
    decoder.start(stage1)
    network, embedding = fold(stage1, cells), EmbeddingNetwork(config)
    embedding.load_basis(basis)
    folder.mkdir(parents=True)
    save_file(dict(_tensors(network, embedding, decoder, basis)), folder / WEIGHTS_FILE)
    shutil.copy(source.file("genes.parquet"), folder / "genes.parquet")
    if graphs and has_exporter():
        _write_graphs(folder, config, embedding.eval(), network)
    write_manifest(
        folder,
        {
            "format_version": FORMAT_VERSION,
            "name": f"random-{name}",
            "version": "0",
            "preset": name,
            "network": config.as_dict(),
            "tasks": ["embed", "pathways", "impute"],
            "training_data": [],
            "notes": "Random weights, to measure speed.",
        },
    )
    return Bundle.load(folder)


@torch.no_grad()
def _calibrate(stage1: PathwayAutoencoder, basis: Basis) -> None:
    """Set the running statistics as training would: inputs of tokens and of the codes have mean 0 and sd 1."""
    rows = draw(basis, _CALIBRATION_CELLS, 1000, seed=1).rows()
    measured = torch.ones(1, len(basis.components), dtype=torch.bool)
    cells = SparseCells(
        torch.from_numpy(rows.gene_index.astype(np.int64)),
        torch.from_numpy(rows.value),
        torch.from_numpy(rows.indptr[:-1]),
        measured,
    )
    read_out = stage1.embedding(cells)
    stage1.standardise.running_mean.copy_(read_out.mean(0))
    stage1.standardise.running_var.copy_(read_out.var(0) + 1e-6)
    encoded = stage1.eval().encode_read_out(stage1.standardise(read_out))
    point = stage1.quantizer.down(encoded)
    stage1.quantizer.input_mean.copy_(point.mean(0))
    stage1.quantizer.input_std.copy_(point.std(0).clamp(min=1e-3))


@torch.no_grad()
def _awaken(cells: CellEncoder) -> None:
    """Give the branches that start at zero random weights: they must take part in the comparison."""
    for layer in cells.transformer.layers:
        for name in ("attention.out.weight", "feed_forward.2.weight"):
            layer.get_parameter(name).normal_(std=0.02)


def _tensors(
    network: InferenceNetwork, embedding: EmbeddingNetwork, decoder: CellDecoder, basis: Basis
) -> Iterator[tuple[str, Tensor]]:
    head = {name: tensor for name, tensor in embedding.state_dict().items() if name.startswith("view_head.")}
    for name, tensor in (network.state_dict() | decoder.state_dict() | head).items():
        yield name, tensor.detach().contiguous().clone()
    for name, array in basis.tensors().items():
        yield name, torch.from_numpy(np.ascontiguousarray(array))


def _write_graphs(folder: Path, config: NetworkConfig, embedding: EmbeddingNetwork, network: InferenceNetwork) -> None:
    from scpalm.training.export.onnx_graph import export_decoder, export_embedding, export_encoder

    weights = folder / WEIGHTS_FILE
    export_embedding(embedding, weights, folder / "embed.onnx")
    export_encoder(network, config.components, weights, folder / "encoder.onnx")
    export_decoder(TokenDecoder(config), config.components, weights, folder / "impute.onnx")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--preset", choices=list(PRESETS), default="base")
    options = parser.parse_args()
    bundle = write_random_bundle(options.folder, options.preset, Bundle.load())
    size = sum(file.stat().st_size for file in bundle.path.iterdir())
    print(f"{size / 1e6:.0f} MB -> {bundle.path}")


if __name__ == "__main__":
    main()
