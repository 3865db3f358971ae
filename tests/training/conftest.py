from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from threadpoolctl import threadpool_limits  # type: ignore[import-untyped]

from scpalm.training.corpus.reader import Corpus
from tests.training.bundles import Exported, exported
from tests.training.drug_response.small import Small, make_small
from tests.training.tiny import write_corpus


@pytest.fixture(scope="module", autouse=True)
def one_thread() -> Iterator[None]:
    """One thread: tests that run at the same time do not slow each other down, and their sums are reproducible."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    with threadpool_limits(1):
        yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Corpus:
    """300 cells of two files, a fifth of them held out."""
    return Corpus(write_corpus(tmp_path_factory.mktemp("tiny")))


@pytest.fixture(scope="session")
def tiny_export(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return exported(tmp_path_factory)


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Small:
    """20 drugs, 40 lines and 60 genes of the tiny bundle's vocabulary."""
    return make_small(tmp_path_factory)
