"""One training step of the gene embedding at the size of the paper's Table 5: the printed Algorithm 2 and ours.

A step is forward, backward and AdamW on every parameter of the embedding. Each variant runs in a new process. Memory is
the peak of that process minus its memory before the first step (parameters included). Run it on an idle machine:

    PYTHONPATH=. python tests/bench/bench_embedding.py [--genes 60000 --tokens 256 --batch 128 --literal-batch 8]
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from scpalm.model.network.embedding import GeneEmbedding, SparseCells

GENE_WIDTH = 64


@dataclass(frozen=True)
class Case:
    """One measurement.

    Attributes:
        genes: number of genes (G).
        tokens: number of tokens (N).
        expressed: genes per cell.
        batch: cells per step.
    """

    variant: str
    genes: int
    tokens: int
    expressed: int
    batch: int
    steps: int
    threads: int


def make_embedding(case: Case) -> GeneEmbedding:
    torch.manual_seed(0)
    embedding = GeneEmbedding(case.genes, case.tokens, GENE_WIDTH)
    with torch.no_grad():
        embedding.gate.copy_(torch.randn_like(embedding.gate))
        embedding.identity.copy_(torch.randn_like(embedding.identity))
    return embedding


def make_cells(case: Case, seed: int = 0) -> SparseCells:
    """Cells of equal length with values in the range of log1p CP10K. A tenth of the genes are not measured."""
    generator = torch.Generator().manual_seed(seed)
    measured = torch.rand(1, case.genes, generator=generator) < 0.9
    known = torch.nonzero(measured[0])[:, 0]
    picks = [torch.randperm(len(known), generator=generator)[: case.expressed].sort().values for _ in range(case.batch)]
    index = torch.cat([known[pick] for pick in picks])
    value = torch.rand(len(index), generator=generator) * 3 + 0.3
    return SparseCells(index, value, torch.arange(0, len(index), case.expressed), measured)


def literal(embedding: GeneEmbedding, cells: SparseCells) -> Tensor:
    """Algorithm 2 as printed, for a whole batch. It allocates ``[B, G, d1]``, ``[B, G, 2 d1]`` and ``[B, G, N]``."""
    genes = torch.nonzero(cells.measured[0])[:, 0]
    x = cells.dense(len(embedding.scale))[:, genes, None]
    r = F.leaky_relu(x * embedding.scale[genes])
    value = embedding.gate[genes] * r + embedding.value_map(r)
    said = embedding.read_out(torch.cat([value, embedding.identity[genes].expand_as(value)], dim=-1))
    expressed = (x > 0).to(said.dtype)
    n = expressed.sum(1)
    z0 = (said * (1 - expressed)).sum(1) / (len(genes) - n)
    return ((said * expressed).sum(1) + z0) / (n + 1)


def peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def run(case: Case) -> dict[str, float]:
    """Seconds per step (the fastest) and peak memory in MiB above that before the first step."""
    torch.set_num_threads(case.threads)
    embedding, cells = make_embedding(case), make_cells(case)
    forward = literal if case.variant == "literal" else GeneEmbedding.__call__
    optimizer = torch.optim.AdamW(embedding.parameters(), lr=1e-3, fused=True)
    before, seconds = peak_mib(), []
    for _ in range(case.steps):
        start = time.perf_counter()
        optimizer.zero_grad(set_to_none=True)
        forward(embedding, cells).square().mean().backward()
        optimizer.step()
        seconds.append(time.perf_counter() - start)
    return {"seconds": min(seconds), "mib": peak_mib() - before, "total_mib": peak_mib()}


def apart(case: Case) -> dict[str, float]:
    """Run a variant in a new process."""
    words = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
    done = subprocess.run(words, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{case.variant} at batch {case.batch} failed: {done.stderr.strip()[-400:] or 'killed'}")
    out: dict[str, float] = json.loads(done.stdout)
    return out


def gradient_difference(case: Case) -> float:
    """Largest difference of any gradient, relative to the largest gradient of its parameter."""
    gradients = []
    for forward in (literal, GeneEmbedding.__call__):
        embedding = make_embedding(case)
        forward(embedding, make_cells(case)).square().mean().backward()
        gradients.append([p.grad for p in embedding.parameters()])
    pairs = zip(*gradients, strict=True)
    return max(float((a - b).abs().max() / a.abs().max()) for a, b in pairs if a is not None and b is not None)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--genes", type=int, default=60_000)
    parser.add_argument("--tokens", type=int, default=256)
    parser.add_argument("--expressed", type=int, default=2_000)
    parser.add_argument("--batch", type=int, default=128)
    parser.add_argument("--literal-batch", type=int, default=8, help="what fits into memory")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--case", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.case:
        print(json.dumps(run(Case(**json.loads(args.case)))))
        return
    size = {"genes": args.genes, "tokens": args.tokens, "expressed": args.expressed, "threads": args.threads}
    print(
        f"G {args.genes:,}, N {args.tokens}, d1 {GENE_WIDTH}, {args.expressed:,} genes a cell, {args.threads} thread(s)"
    )
    print(f"{'':24} {'batch':>6} {'MiB':>8} {'s/step':>9} {'ms/cell':>10}")
    a_cell = {}
    for name, variant, batch, steps in (
        ("Algorithm 2, literally", "literal", args.literal_batch, 3),
        ("ours", "ours", args.literal_batch, 5),
        ("ours", "ours", args.batch, 5),
    ):
        measured = apart(Case(variant, batch=batch, steps=steps, **size))
        a_cell[variant] = measured["seconds"] / batch
        print(
            f"{name:24} {batch:6} {measured['mib']:8,.0f} {measured['seconds']:9.3f} {1e3 * a_cell[variant]:10.2f}"
            f"   (whole process {measured['total_mib']:,.0f} MiB)"
        )
    print(f"per cell: {a_cell['literal'] / a_cell['ours']:.0f} times faster")
    difference = gradient_difference(Case("both", batch=min(2, args.literal_batch), steps=1, **size))
    print(f"largest relative difference of a gradient: {difference:.1e}")


if __name__ == "__main__":
    main()
