"""What half precision changes: codes kept and cosine of h_C against the ONNX session, on the CPU.

    PYTHONPATH=. python tests/bench/bench_half.py CELLS.h5ad ... [--cells 200]

Each file is read at evenly spaced cells. `CudaSession` computes with the precision of each row.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import anndata
import numpy as np
import torch

import scpalm
from scpalm.model.sessions.cuda import CudaSession


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", type=Path)
    parser.add_argument("--cells", type=int, default=200)
    options = parser.parse_args()
    engine = scpalm.load(device="cpu")
    print("| set | precision | codes kept | cosine of h_C, mean | least |\n|---|---|---|---|---|")
    for file in options.files:
        cells = anndata.read_h5ad(file)
        cells = cells[np.unique(np.linspace(0, cells.n_obs - 1, options.cells).astype(int))].copy()
        with engine.read(cells) as reader:
            expected = engine.encode(next(iter(reader)))
        for dtype in (torch.float32, torch.float16, torch.bfloat16):
            found = CudaSession(engine.bundle, device="cpu", dtype=dtype).encode(expected.rows)
            kept = (found.codes == expected.codes).mean()
            lengths = np.linalg.norm(found.h_C, axis=1) * np.linalg.norm(expected.h_C, axis=1)
            cosine = (found.h_C * expected.h_C).sum(axis=1) / lengths
            print(f"| {file.stem} | {dtype} | {kept:.4f} | {cosine.mean():.5f} | {cosine.min():.5f} |", flush=True)


if __name__ == "__main__":
    main()
