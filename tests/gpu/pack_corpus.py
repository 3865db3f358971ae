"""Pack a corpus into one small file, to train on another machine with `tests.gpu.train_base`.

    python -m tests.gpu.pack_corpus CORPUS PACKED.npz [--max-mib 45] [--simulated-cells 20] [--level 19]

Real cells are all kept, and as many simulated cells of each profile as fit.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from scpalm.training.corpus.packed import PackOptions, pack_corpus
from scpalm.training.corpus.reader import Corpus


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("corpus", type=Path, metavar="CORPUS")
    parser.add_argument("out", type=Path, metavar="PACKED")
    parser.add_argument("--max-mib", type=float, default=PackOptions.max_mib)
    parser.add_argument("--simulated-cells", type=int, help="cells per profile; default: as many as fit")
    parser.add_argument("--level", type=int, default=PackOptions.level, help="of Zstandard, 1 to 22")
    args = parser.parse_args()
    start = time.perf_counter()
    packed = pack_corpus(Corpus(args.corpus), args.out, PackOptions(args.max_mib, args.simulated_cells, args.level))
    print(
        f"{args.out}: {packed.mib:.1f} MiB, {packed.cells:,} cells, {packed.entries:,} counts, "
        f"{packed.mib * 2**23 / max(packed.entries, 1):.2f} bits each, {packed.simulated_cells} cells per profile, "
        f"{time.perf_counter() - start:.0f} s"
    )


if __name__ == "__main__":
    main()
