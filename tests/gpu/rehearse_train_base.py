"""The rehearsal of `train_base`: a small network on random cells, in two calls, as on two machines."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from scpalm.training.corpus.packed import PackOptions, pack_corpus
from scpalm.training.corpus.reader import Corpus
from tests.gpu.join_run import join
from tests.gpu.train_base import SHARES, Options, train
from tests.training.random_corpus import write_random_corpus


def rehearse(minutes: float) -> dict[str, Any]:
    """Pack random cells, train a small network in two calls, and make a run of the parts, as on two machines."""
    torch.set_num_threads(1)  # of a network this small, other threads would only wait
    sizes = {"num_tokens": 16, "width": 32, "num_layers": 2, "num_heads": 4, "num_codes": 16, "components": 24}
    with tempfile.TemporaryDirectory() as folder:
        there, home = Path(folder) / "there", Path(folder) / "home"
        write_random_corpus(home / "corpus", 512, 100, 1500)
        pack_corpus(Corpus(home / "corpus"), home / "packed.npz", PackOptions(level=3))
        first = Options(
            minutes / 2,
            minutes,
            home / "packed.npz",
            there / "out",
            there / "work",
            "mini",
            "cpu",
            sizes=sizes,
            settings=("batch_size=32", "warmup_steps=5", "replicas=2", "queue_start=128"),
        )
        reports = [train(first), train(first)]
        run = join(there / "out", home / "run", home / "corpus")
        for stage in SHARES:
            run.finished(stage)
        print(f"rehearsal: {sum(report['seconds'] for report in reports):.0f} s in two calls; the run at home is whole")
        return reports[1]
