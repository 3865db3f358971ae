from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from scpalm.model.bundle import Bundle
from tests.training.bundles import exported


@pytest.fixture(scope="session", autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """120 genes, N 8, D 16, random weights."""
    return Bundle.load(exported(tmp_path_factory).bundle)
