"""``scpalm-train report RUN``: the progress of a run as one HTML file with embedded pictures."""

from __future__ import annotations

import base64
import html
import io
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.figure import Figure
from numpy.typing import NDArray

from scpalm.model.network.cells import CellEncoder
from scpalm.model.network.config import NetworkConfig
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.run import Run, RunError, write_atomically
from scpalm.training.stages.stage1 import load_stage1

CELLS = 3000
_LABELS = 20
_TITLES = {"stage1": "Stage 1, pathways", "stage2": "Stage 2, cells"}


def write_report(run: Run, out: Path, *, seed: int = 0) -> Path:
    """Write curves of both stages, code usage, and UMAPs of at most 3,000 cells by data set, tissue and label.

    Parts that the run has not reached yet are left out with a note. Raises RunError when it has not begun.
    """
    config = run.config()
    curves = _read_curves(run)
    if not curves:
        raise RunError(f"{run.path} has no curves yet: nothing was evaluated. Train it with `scpalm-train pathways`.")
    sections = [_section(_TITLES[stage], _curve_pictures(lines)) for stage, lines in curves.items()]
    if run.has_checkpoint("stage1"):
        sections += _cells_sections(run, seed)
    else:
        sections.append("<p>No checkpoint of stage 1 yet: no codes, no cells.</p>")
    sections.append(_section("Options", [f"<pre>{html.escape(json.dumps(config, indent=1))}</pre>"]))
    page = (
        f"<!doctype html><html lang='en'><meta charset='utf-8'><title>{html.escape(run.path.name)}</title>"
        "<style>body{font:15px/1.5 sans-serif;max-width:1100px;margin:2em auto;padding:0 1em}"
        "img{max-width:100%}pre{background:#f4f4f4;padding:1em;overflow:auto}</style>"
        f"<h1>Training run {html.escape(run.path.name)}</h1>{''.join(sections)}</html>"
    )
    write_atomically(out, page.encode())
    return out


def _read_curves(run: Run) -> dict[str, list[dict[str, Any]]]:
    """Lines by stage. A resumed run may repeat a step: the last line counts."""
    path, stages = run.path / "curves.jsonl", dict[str, dict[int, dict[str, Any]]]()
    for line in path.read_text().splitlines() if path.exists() else []:
        try:
            values = json.loads(line)
            stages.setdefault(str(values["stage"]), {})[int(values["step"])] = values
        except (ValueError, KeyError, TypeError):
            continue  # the last line of a run that was killed while it wrote
    known = {name: lines for name, lines in stages.items() if name in _TITLES}
    return {name: [lines[step] for step in sorted(lines)] for name, lines in sorted(known.items())}


def _curve_pictures(lines: list[dict[str, Any]]) -> list[str]:
    groups = {
        "reconstruction (mean squared error)": ("mse", "held_out_mse", "gene_mean_mse", "pca_mse"),
        "spectral scores (mean squared error)": ("score_mse", "held_out_score_mse"),
        "codes in use": ("used_codes", "perplexity"),
        "quantizer": ("commitment", "distance"),
        "contrastive term": ("contrastive",),
        "learning rate": ("lr",),
    }
    present = {t: [n for n in names if any(n in line for line in lines)] for t, names in groups.items()}
    present = {title: names for title, names in present.items() if names}
    figure, axes = plt.subplots(-(-len(present) // 3), 3, figsize=(13, 3.4 * -(-len(present) // 3)), squeeze=False)
    for axis in axes.ravel()[len(present) :]:
        axis.remove()
    for axis, (title, names) in zip(axes.ravel(), present.items(), strict=False):
        for name in names:
            points = [(line["step"], line[name]) for line in lines if name in line]
            style = "--" if name in ("gene_mean_mse", "pca_mse") else "-o"
            axis.plot(*zip(*points, strict=True), style, markersize=2.5, label=name)
        axis.set(title=title, xlabel="step")
        axis.legend(fontsize=8)
    last = {k: v for k, v in lines[-1].items() if k not in ("stage", "step")}
    values = ", ".join(f"{name} {value:.4g}" for name, value in last.items())
    return [_picture(figure), f"<p>At step {lines[-1]['step']}: {html.escape(values)}.</p>"]


def _cells_sections(run: Run, seed: int) -> list[str]:
    corpus = Corpus(run.config()["corpus"])
    network = run.section("network", NetworkConfig)
    try:
        stage1 = load_stage1(run, network)
    except RunError as error:
        return [f"<p>{html.escape(str(error))}</p>"]
    rows = np.sort(np.random.default_rng(seed).permutation(len(corpus))[:CELLS])
    codes = _codes(corpus, stage1, rows)
    sections = [_section("Codes", [_usage(codes, network.num_codes)])]
    if run.has_checkpoint("stage2"):
        encoder = CellEncoder(network)
        run.fill(encoder, "stage2", "encoder")
        with torch.no_grad():
            parts = [encoder.eval().embed(stage1.quantizer.from_indices(part)) for part in codes.split(256)]
        vectors, name = torch.cat(parts).numpy(), "h_C"
    else:
        vectors, name = codes.numpy().astype(np.float32), "the codes (stage 2 has no checkpoint yet)"
    places = _umap(vectors, seed, hamming=not run.has_checkpoint("stage2"))
    table = corpus.obs.iloc[rows]
    pictures = [
        _scatter(places, table[column].astype(str).to_numpy(), column)
        for column in ("dataset", "tissue", "cell_type")
        if column in table
    ]
    return [*sections, _section(f"UMAP of {name}, {len(rows):,} cells", pictures)]


@torch.no_grad()
def _codes(corpus: Corpus, stage1: PathwayAutoencoder, rows: NDArray[np.int64]) -> torch.Tensor:
    return torch.cat([stage1.encode(corpus.batch(rows[i : i + 256])) for i in range(0, len(rows), 256)])


def _usage(codes: torch.Tensor, num_codes: int) -> str:
    """How often each code occurs, and how many codes each position uses."""
    share = torch.bincount(codes.reshape(-1), minlength=num_codes).double().sort(descending=True).values
    share = share / share.sum()
    perplexity = float(torch.exp(-(share * share.clamp(min=1e-12).log()).sum()))
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.2))
    left.bar(range(num_codes), share.numpy())
    left.set(title=f"{int((share > 0).sum())} of {num_codes} codes in use, perplexity {perplexity:.1f}", xlabel="code")
    left.set_ylabel("share of the tokens")
    right.bar(range(codes.shape[1]), [len(position.unique()) for position in codes.T])
    right.set(title="codes used at each position", xlabel="token")
    return _picture(figure)


def _umap(vectors: NDArray[np.float32], seed: int, *, hamming: bool) -> NDArray[np.float32]:
    import umap

    neighbours = min(15, len(vectors) - 1)
    metric = "hamming" if hamming else "euclidean"
    made = umap.UMAP(n_neighbors=neighbours, metric=metric, init="random", random_state=seed, n_jobs=1)
    places: NDArray[np.float32] = made.fit_transform(vectors)
    return places


def _scatter(places: NDArray[np.float32], labels: NDArray[np.str_], title: str) -> str:
    names, count = np.unique(labels, return_counts=True)
    shown = set(names[np.argsort(-count, kind="stable")][:_LABELS]) - {""}
    figure, axis = plt.subplots(figsize=(9, 6))
    rest = ~np.isin(labels, list(shown))
    axis.scatter(
        places[rest, 0], places[rest, 1], s=3, color="lightgrey", label="others or none" if rest.any() else None
    )
    colours = plt.get_cmap("tab20")
    for number, name in enumerate(sorted(shown)):
        here = places[labels == name]
        axis.scatter(here[:, 0], here[:, 1], s=3, color=colours(number), label=name[:40])
    axis.set(title=f"by {title}", xticks=[], yticks=[])
    axis.legend(markerscale=4, fontsize=8, loc="center left", bbox_to_anchor=(1, 0.5))
    return _picture(figure)


def _section(title: str, parts: Iterable[str]) -> str:
    return f"<h2>{html.escape(title)}</h2>{''.join(parts)}"


def _picture(figure: Figure, metadata: Mapping[str, str | None] | None = None) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=90, bbox_inches="tight", metadata=dict(metadata or {"Software": None}))
    plt.close(figure)
    return f"<img src='data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}'>"
