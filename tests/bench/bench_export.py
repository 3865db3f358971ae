"""Weights of a bundle in float32, float16 and int8: size, speed, and loss compared with float32.

Uses the network of a bundle (by default the packaged one) and the cells of a file, without the decoder. The last column
shows whether an export would refuse the precision. Run it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_export.py FILE.h5ad [--bundle BUNDLE]
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
import time
from pathlib import Path

import torch
from safetensors.numpy import save_file

from scpalm.model.bundle import DEFAULT_BUNDLE, Bundle, write_manifest
from scpalm.model.network.read_out import EmbeddingNetwork, LinearReadOut
from scpalm.model.read_out.basis import Basis
from scpalm.model.sessions.base import WEIGHTS_FILE, network_config, read_basis
from scpalm.model.sessions.onnx import ENCODER_FILE, MODEL_FILE, OnnxSession
from scpalm.model.sessions.torchscript import load_embedding, load_network
from scpalm.training.corpus.build import build_corpus
from scpalm.training.corpus.reader import Corpus
from scpalm.training.corpus.source import CorpusOptions
from scpalm.training.export.onnx_graph import export_embedding, export_encoder
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
from scpalm.training.metrics.rows import write_json


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--bundle", type=Path, default=DEFAULT_BUNDLE)
    parser.add_argument("--cells", type=int, default=2048)
    args = parser.parse_args()
    torch.set_num_threads(1)
    source = Bundle.load(args.bundle)
    config = network_config(source)
    basis, embedding = read_basis(source, config), load_embedding(source)
    read_out = LinearReadOut(config)
    read_out.load(basis)
    exact = Exact(load_network(source), read_out)
    print(f"{source.name} {source.version} on {args.file.name}, one thread; its float16 weights are the reference")
    print(
        f"{'':8} {'MB':>6} {'cells/s':>8} {'max abs':>9} {'cosine':>8} {'lowest':>8} {'codes':>8} "
        f"{'ARI before':>10} {'after':>6}  export"
    )
    with tempfile.TemporaryDirectory() as folder:
        build_corpus(Path(folder) / "corpus", [args.file], source.vocabulary, CorpusOptions(held_out=0.0))
        corpus = Corpus(Path(folder) / "corpus")
        chosen = parity_cells(corpus, args.cells)
        rows = as_rows(corpus, chosen)
        for precision in LIMITS:
            out = Path(folder) / precision
            out.mkdir()
            write_graphs(exact, embedding, basis, out, precision)
            shutil.copy(source.file("genes.parquet"), out)
            write_json(out / "manifest.json", {})
            write_manifest(out, {k: v for k, v in source.manifest.items() if k != "files"})
            session = OnnxSession(Bundle.load(out), device="cpu", threads=1)
            session.warm_up()
            start = time.perf_counter()
            tokens = session.encode(rows).tokens
            speed = len(rows) / (time.perf_counter() - start)
            assert tokens is not None
            lost = loss_of_precision(exact, corpus, chosen, tokens)
            size = (out / WEIGHTS_FILE).stat().st_size / 1e6
            print(
                f"{precision:8} {size:6.1f} {speed:8.0f} {lost['max_abs_difference']:9.1e} {lost['mean_cosine']:8.5f} "
                f"{lost['min_cosine']:8.5f} {lost['code_agreement']:8.5f} {lost.get('ari_before', float('nan')):10.3f} "
                f"{lost.get('ari_after', float('nan')):6.3f}  {beyond(lost, precision) or 'written'}"
            )


def write_graphs(exact: Exact, embedding: EmbeddingNetwork, basis: Basis, out: Path, precision: Precision) -> None:
    """Write the weights and both graphs into ``out``."""
    weights = out / WEIGHTS_FILE
    head = {name: tensor for name, tensor in embedding.state_dict().items() if name.startswith("view_head.")}
    # As in an export, the view head has half precision at least.
    half: Precision = "float32" if precision == "float32" else "float16"
    save_file(
        stored(exact.network.state_dict(), precision) | stored(head, half) | basis.tensors(),
        str(weights),
    )
    export_embedding(embedding, weights, out / MODEL_FILE)
    export_encoder(exact.network, basis.width, weights, out / ENCODER_FILE)


if __name__ == "__main__":
    main()
