"""Fault injection: every accepted request is answered exactly once, no matter which process dies."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.chaos.cases import CASES, Case
from tests.chaos.cluster import cluster
from tests.chaos.job_cases import JOB_CASES
from tests.chaos.upgrade_cases import UPGRADE_CASES
from tests.redis_server import needs_redis

pytestmark = needs_redis


@pytest.mark.parametrize("case", CASES + JOB_CASES + UPGRADE_CASES, ids=lambda case: case.__name__)
def test_nothing_is_lost_or_duplicated(case: Case, tmp_path: Path) -> None:
    with cluster(tmp_path / "cluster") as made:
        row = case(made, 1)
    assert (row.lost, row.duplicated) == (0, 0), row
