"""Export a finished run as a bundle: fold the weights, write the files, and check that the runtimes agree."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as package_version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save_file

from scpalm.model.bundle import FORMAT_VERSION, Bundle, write_manifest
from scpalm.model.genes.rows import Rows
from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.decoder import CellDecoder, TokenDecoder
from scpalm.model.network.folded import InferenceNetwork, fold
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.network.read_out import EmbeddingNetwork, LinearReadOut
from scpalm.model.sessions.base import WEIGHTS_FILE
from scpalm.model.sessions.onnx import DECODER_FILE, ENCODER_FILE, MODEL_FILE, OnnxSession
from scpalm.model.sessions.torchscript import TorchScriptSession, trace
from scpalm.training.corpus.reader import Corpus
from scpalm.training.data.sampler import Sampler
from scpalm.training.export.bundle_files import apply_umask
from scpalm.training.export.onnx_graph import OPSET, export_decoder, export_embedding, export_encoder
from scpalm.training.export.precision import (
    LIMITS,
    Exact,
    Precision,
    as_rows,
    beyond,
    loss_of_precision,
    parity_cells,
    stored,
)
from scpalm.training.runs.config import Stage2Config
from scpalm.training.runs.run import Run, RunError
from scpalm.training.stages.stage1 import load_stage1

MAX_DIFFERENCE = 1e-4
MIN_CODE_AGREEMENT = 0.999
PARITY_CELLS = 1024


@dataclass(frozen=True)
class BundleOptions:
    """How a bundle is named and stored.

    Attributes:
        name: of the model; None: the preset's. version: of the model.
        card: JSON file whose ``training_data`` and ``notes`` go into the manifest.
        precision: of the stored weights. torchscript: also write a TorchScript archive here.
    """

    name: str | None = None
    version: str = "1"
    card: Path | None = None
    precision: Precision = "float16"
    torchscript: Path | None = None


def export_run(run_dir: Path, out: Path, options: BundleOptions) -> list[str]:
    """Write a bundle (whole or not at all) and return the lines of its report.

    Raises:
        RunError: the run is unfinished or cannot be folded, ``out`` exists, ONNX Runtime and PyTorch differ too much,
            or the precision costs too much.
    """
    if out.exists():
        raise RunError(f"{out} exists already. Choose another folder or remove it.")
    run, precision = Run(run_dir), options.precision
    saved = run.config()
    config = run.section("network", NetworkConfig)
    for stage in ("stage1", "stage2"):
        run.finished(stage)
    if config.pooling != "solve":
        raise RunError(f"{run_dir}: pooling={config.pooling} cannot be exported. Train with pooling=solve.")
    stage1 = load_stage1(run, config)
    read_out = stage1.embedding
    assert isinstance(read_out, LinearReadOut)
    cells = CellEncoder(config)
    run.fill(cells, "stage2", "encoder")
    embedding = embedding_network(run, config, read_out)
    decoder = cell_decoder(run, stage1)
    config = replace(
        config,
        view_width=config.view_width if embedding.view_head else 0,
        decoder_reads_f=decoder.score_reader is not None,
    )
    corpus = Corpus(saved["corpus"])
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    exact = Exact(fold(stage1, cells), read_out)
    stage2 = run.section("stage2", Stage2Config)
    if stage2.standardise:
        standardise_output(exact, corpus, power=stage2.tissue_power, seed=stage2.seed)
    weights = partial / WEIGHTS_FILE
    save_file(_tensors(exact.network, embedding, decoder, read_out, precision), str(weights))
    export_embedding(embedding, weights, partial / MODEL_FILE)
    export_encoder(exact.network, config.components, weights, partial / ENCODER_FILE)
    export_decoder(TokenDecoder(config), config.components, weights, partial / DECODER_FILE)
    corpus.vocabulary.save(partial / "genes.parquet")
    manifest = _manifest(options, saved | {"network": config.as_dict()}, corpus)
    write_manifest(partial, manifest)
    chosen = parity_cells(corpus, PARITY_CELLS)
    bundle, rows = Bundle.load(partial), as_rows(corpus, chosen)
    values = parity(bundle, rows)
    difference = max(values["max_abs_difference"], values["embedding_max_abs_difference"])
    agreement = (
        f"outputs differ by at most {difference:.1e} (limit {MAX_DIFFERENCE:.0e}), and "
        f"{values['code_agreement']:.2%} of the codes of {len(rows):,} cells are equal (limit {MIN_CODE_AGREEMENT:.1%})"
    )
    if difference > MAX_DIFFERENCE or values["code_agreement"] < MIN_CODE_AGREEMENT:
        raise RunError(f"ONNX Runtime and PyTorch disagree, no bundle was written (see {partial}): {agreement}.")
    tokens = OnnxSession(bundle, device="cpu").encode(rows).tokens
    assert tokens is not None
    lost = loss_of_precision(exact, corpus, chosen, tokens)
    report = [
        f"ONNX Runtime and PyTorch agree: {agreement}.",
        f"Stored as {precision}: {lost['code_agreement']:.2%} of the codes are those of float32 (limit "
        f"{LIMITS[precision].code_agreement:.0%}), mean cosine of h_C {lost['mean_cosine']:.5f} (limit "
        f"{LIMITS[precision].cosine}).",
    ]
    if passed := beyond(lost, precision):
        raise RunError(
            f"{precision} costs too much, no bundle was written (see {partial}): {passed}. "
            f"Export with --precision {'float32' if precision == 'float16' else 'float16'}."
        )
    write_manifest(partial, manifest | {"parity": values, "precision": {"weights": precision, **lost}})
    apply_umask(partial)
    partial.rename(out)
    if options.torchscript is not None:
        trace(Bundle.load(out)).save(str(options.torchscript))
        report.append(f"TorchScript -> {options.torchscript}")
    size = sum(file.stat().st_size for file in out.iterdir())
    return [*report, f"{size / 1e6:.1f} MB -> {out}"]


def embedding_network(run: Run, config: NetworkConfig, read_out: LinearReadOut) -> EmbeddingNetwork:
    """The network of the served embedding; without a view head if the run has not trained one."""
    has_head = config.view_width > 0 and run.has_checkpoint("views")
    if has_head:
        run.finished("views")
    network = EmbeddingNetwork(replace(config, view_width=config.view_width if has_head else 0))
    network.load_basis(read_out.basis)
    if network.view_head is not None:
        run.fill(network.view_head, "views", "head")
    return network.eval()


def cell_decoder(run: Run, stage1: PathwayAutoencoder) -> CellDecoder:
    """The decoder of a run; if it has not trained one, that of stage 1, which reads the codes alone."""
    if not run.has_checkpoint("decoder"):
        decoder = CellDecoder(replace(stage1.config, decoder_reads_f=False))
        decoder.start(stage1)
        return decoder
    run.finished("decoder")
    decoder = CellDecoder(stage1.config)
    run.fill(decoder, "decoder", "decoder")
    return decoder


def _tensors(
    network: InferenceNetwork,
    embedding: EmbeddingNetwork,
    decoder: CellDecoder,
    read_out: LinearReadOut,
    precision: Precision,
) -> dict[str, NDArray[np.generic]]:
    """Content of ``weights.safetensors``."""
    # Its loss of precision is not checked, so it is stored in half precision at least. So is that of the view head.
    half: Precision = "float32" if precision == "float32" else "float16"
    head = {name: tensor for name, tensor in embedding.state_dict().items() if name.startswith("view_head.")}
    tensors = stored(network.state_dict(), precision) | stored(decoder.state_dict(), half) | stored(head, half)
    return tensors | read_out.basis.tensors()


def standardise_output(exact: Exact, corpus: Corpus, *, power: float, seed: int, cells: int = 4096) -> None:
    """Give each coordinate of h_C mean 0 and sd 1 over tissue-balanced training cells, by changing the last LN.

    Users compare cells by distances in h_C, and without this step a few coordinates dominate them.
    """
    h = torch.from_numpy(exact.run(corpus, Sampler(corpus, power=power, seed=seed).draw(2**31 + 3, cells))[0])
    norm = exact.network.cell_encoder.transformer.norm
    scale = 1 / h.std(0).clamp(min=1e-6)
    with torch.no_grad():
        norm.bias.copy_((norm.bias - h.mean(0)) * scale)
        norm.weight.copy_(norm.weight * scale)


def _manifest(options: BundleOptions, saved: dict[str, Any], corpus: Corpus) -> dict[str, Any]:
    described = json.loads(options.card.read_text()) if options.card is not None else {}
    files = [{"file": f["file"], "cells": f["cells"]} for f in corpus.meta["files"]]
    return {
        "format_version": FORMAT_VERSION,
        "name": options.name or str(saved["preset"]),
        "version": options.version,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "preset": saved["preset"],
        "network": saved["network"],
        "tasks": ["embed", "pathways", "impute"],
        "training": {key: saved[key] for key in ("stage1", "stage2", "views", "decoder") if key in saved},
        "training_data": described.get("training_data", files),
        "notes": described.get("notes", ""),
        "evaluation": described.get("evaluation", []),
        "onnx_opset": OPSET,
        "onnx_inputs": "gene_index [cells, length] int32, value [cells, length] float32 (log1p CP10K), padded with 0; "
        "center [R], solve [R, R], log_measured [1, 1]: the correction for the genes that the cells' file measured, "
        "from the tensors 'basis.*' of weights.safetensors (scpalm.model.read_out.basis.Basis)",
        "versions": {package: _version(package) for package in ("scpalm", "torch", "onnx", "numpy")},
    }


def _version(package: str) -> str:
    try:
        return package_version(package)
    except PackageNotFoundError:
        return "unknown"


def parity(bundle: Bundle, rows: Rows) -> dict[str, float]:
    """Compare ONNX Runtime with PyTorch on the same cells: differences of h_C, agreement of codes, cosine."""
    one = OnnxSession(bundle, device="cpu").encode(rows)
    with torch.inference_mode():
        two = TorchScriptSession(bundle, device="cpu").encode(rows)
    h, codes, other, other_codes = one.h_C, one.codes, two.h_C, two.codes
    same = (codes == other_codes).all(axis=1)
    cosine = (h * other).sum(1) / (np.linalg.norm(h, axis=1) * np.linalg.norm(other, axis=1))
    return {
        "cells": float(len(rows)),
        "embedding_max_abs_difference": float(np.abs(one.embedding - two.embedding).max()),
        "max_abs_difference": float(np.abs(h - other)[same].max(initial=0.0)),
        "max_abs_difference_all_cells": float(np.abs(h - other).max()),
        "cells_with_equal_codes": float(same.mean()),
        "code_agreement": float((codes == other_codes).mean()),
        "min_cosine": float(cosine.min()),
    }
