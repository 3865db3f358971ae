"""Write the cells of files in many ways, and count what comes of each: right, refused, wrong.

    python tests/inputs/table.py FILE.h5ad ... [--cells 40] [--way NAME] [--details]

Right is an embedding within 2 % of the median distance between two cells of the clean file.
"""

from __future__ import annotations

import argparse
import tempfile
from collections import Counter, defaultdict
from pathlib import Path

import anndata as ad
import numpy as np
from numpy.typing import NDArray

from scpalm import Engine, load
from scpalm.model.bundle import Bundle
from scpalm.model.errors import InputError
from scpalm.model.io.other_formats.convert import as_h5ad
from scpalm.model.spec import RequestSpec
from tests.inputs.ways import FILES, WAYS, Clean

TOLERANCE = 0.02


def clean_cells(path: Path, num_cells: int) -> Clean:
    """Some cells of a file with raw counts in X."""
    adata = ad.read_h5ad(path, backed="r")
    rows = np.unique(np.linspace(0, adata.n_obs - 1, min(num_cells, adata.n_obs)).astype(int))
    part = adata[rows].to_memory()
    counts = part.X.toarray().astype(np.float64)
    some = counts.sum(axis=1) > 0
    part, counts = part[some], counts[some]
    ids = part.var["ensembl_id"].astype(str).tolist() if "ensembl_id" in part.var else [""] * part.n_vars
    # Ids of another annotation were added to many files: keep those that say what the symbol says.
    vocabulary = Bundle.load().vocabulary
    known = vocabulary.by_symbol
    pairs = zip(part.var_names, ids, strict=True)
    ids = [number if known.get(name, -2) == vocabulary.find_id(number) else "" for name, number in pairs]
    totals = part.obs["total_UMIs"].to_numpy(np.float64) if "total_UMIs" in part.obs else counts.sum(axis=1)
    totals = totals if (totals >= counts.sum(axis=1)).all() else counts.sum(axis=1)
    return Clean(counts, part.var_names.tolist(), ids, totals)


def embedding(engine: Engine, cells: ad.AnnData | Path) -> NDArray[np.float32]:
    """Raises InputError."""
    source = as_h5ad(cells, cells.parent) if isinstance(cells, Path) else cells
    with engine.stream(source, RequestSpec(("embed",))) as stream:
        return np.concatenate([block.values["embed"] for block in stream])


def hoped_for(name: str) -> str:
    return "same" if name in FILES else WAYS[name][1]


def outcome(engine: Engine, cells: Clean, expected: NDArray[np.float32], name: str) -> tuple[str, str]:
    """``right``, ``refused`` or ``wrong``, and details."""
    try:
        if name in FILES:
            with tempfile.TemporaryDirectory() as folder:
                found = embedding(engine, FILES[name](cells, Path(folder)))
        else:
            found = embedding(engine, WAYS[name][0](cells, np.random.default_rng(0)))
    except InputError as error:
        return "refused", str(error)
    between = np.linalg.norm(expected[:, None] - expected[None], axis=2)[np.triu_indices(len(expected), 1)]
    if found.shape != expected.shape:
        return "wrong", f"{found.shape} instead of {expected.shape}"
    off = float(np.linalg.norm(found - expected, axis=1).max() / np.median(between))
    return ("right" if off <= TOLERANCE else "wrong"), f"off by {off:.3f}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", type=Path, nargs="+")
    parser.add_argument("--cells", type=int, default=40)
    parser.add_argument("--way", action="append")
    parser.add_argument("--details", action="store_true", help="print every outcome that is not as expected")
    options = parser.parse_args()
    engine = load(device="cpu")
    table: dict[str, Counter[str]] = defaultdict(Counter)
    for path in options.files:
        cells = clean_cells(path, options.cells)
        expected = embedding(engine, cells.adata())
        for name in options.way or (*WAYS, *FILES):
            what, details = outcome(engine, cells, expected, name)
            table[name][what] += 1
            hoped = hoped_for(name)
            fine = what != "wrong" and (hoped == "either" or what == ("right" if hoped == "same" else "refused"))
            if options.details and not fine:
                print(f"{path.stem[:28]:28} {name:28} {what:8} {details[:150]}", flush=True)
    print(f"{'way':30}{'expected':>10}{'right':>7}{'refused':>9}{'wrong':>7}")
    for name, counts in table.items():
        print(f"{name:30}{hoped_for(name):>10}{counts['right']:7}{counts['refused']:9}{counts['wrong']:7}")
    total: Counter[str] = sum(table.values(), Counter())
    print(f"{'all':30}{'':>10}{total['right']:7}{total['refused']:9}{total['wrong']:7}")


if __name__ == "__main__":
    main()
