from __future__ import annotations

import pytest
import torch

from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.training.corpus.reader import Corpus
from scpalm.training.runs.config import Stage2Config
from scpalm.training.stages import linear_start
from scpalm.training.stages.linear_start import ridge
from scpalm.training.stages.stage2 import prepare_stage2
from tests.training.tiny import CPU, SIZES, write_corpus


@pytest.mark.parametrize("cells", [30, 400])
def test_ridge_is_the_same_by_features_and_by_cells(cells: int) -> None:
    """Compare with the normal equations, for more and for fewer features than cells."""
    torch.manual_seed(0)
    x, y = torch.randn(cells, 100), torch.randn(cells, 3)
    centred, target = x.double() - x.double().mean(0), y.double() - y.double().mean(0)
    wanted = torch.linalg.solve(centred.T @ centred + 30.0 * torch.eye(100).double(), centred.T @ target)
    torch.testing.assert_close(ridge(x, y).double(), wanted, rtol=1e-4, atol=1e-6)


def test_a_wide_network_starts_from_fewer_cells(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    corpus = Corpus(write_corpus(tmp_path))  # type: ignore[arg-type]
    torch.manual_seed(0)
    stage1 = PathwayAutoencoder(SIZES).eval()
    config = Stage2Config(steps=2, batch_size=16, warmup_steps=1, replicas=2, queue=64, queue_start=32, clusters=3)
    seen: list[tuple[int, ...]] = []

    def watched(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        seen.append(tuple(x.shape))
        return ridge(x, y)

    monkeypatch.setattr(linear_start, "ridge", watched)
    features = SIZES.num_tokens * SIZES.code_width
    monkeypatch.setattr(linear_start, "MIN_CELLS", 8)
    monkeypatch.setattr(linear_start, "MOST_FEATURES", 2 * features * 12)
    prepare_stage2(corpus, stage1, config, CPU).close()
    assert seen[0] == (2 * 12, features)
