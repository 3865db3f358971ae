"""Join and verify the parts that `tests.gpu.train_base` wrote, and make a run of them.

    python -m tests.gpu.join_run PARTS RUN --corpus CORPUS

CORPUS is the one that was packed, or `--unpack PACKED.npz` makes it. The run can be exported once all stages are
finished. Its weights are rounded to float16, and the decoder of stage 1 is the served one, which takes its place.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from scpalm.training.corpus.packed import unpack_corpus
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.portable import read_parts, restore_run
from scpalm.training.runs.run import Run


def join(parts: Path, run_dir: Path, corpus_dir: Path) -> Run:
    """Raises RunError for a damaged part, or if there is a run already."""
    corpus, run = Corpus(corpus_dir), Run(run_dir)
    restore_run(read_parts(parts), run)
    run.save_config(run.config() | {"corpus": str(corpus_dir.resolve()), "corpus_digest": corpus.digest})
    return run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", type=Path, metavar="PARTS")
    parser.add_argument("run", type=Path, metavar="RUN")
    parser.add_argument("--corpus", type=Path, required=True)
    parser.add_argument("--unpack", type=Path, help="packed corpus to write to CORPUS first")
    args = parser.parse_args()
    if args.unpack is not None:
        unpack_corpus(args.unpack, args.corpus)
    run = join(args.parts, args.run, args.corpus)
    stages = [stage for stage in ("stage1", "stage2", "decoder") if run.has_checkpoint(stage)]
    for stage in stages:
        state = run.load_checkpoint(stage)
        print(f"{stage}: step {state['step']}, {'finished' if state['ended'] else 'unfinished'}")


if __name__ == "__main__":
    main()
