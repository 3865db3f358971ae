"""Random sequences of what can happen to jobs, with both ledgers, real files and real faults.

Each accepted body has one result or one reported failure; no result is another body's; no file is without an owner.
"""

from __future__ import annotations

from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis.errors import FlakyStrategyDefinition
from hypothesis.stateful import (
    run_state_machine_as_test,
)

from tests.app.jobs.machine.jobs import JobMachine
from tests.redis_server import RedisServer, require_redis

SETTINGS = settings(
    max_examples=40,
    stateful_step_count=30,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large],
)


def run(machine: type[JobMachine]) -> None:
    """Run a state machine, up to three times.

    Leases lapse by a clock. On a busy machine a lease may lapse between two runs of the same steps, and Hypothesis then
    finds other steps possible than before. That says nothing about jobs: start again.
    """
    for attempt in range(3):
        try:
            run_state_machine_as_test(machine, settings=SETTINGS)
            return
        except FlakyStrategyDefinition:
            if attempt == 2:
                raise


def test_jobs_in_sqlite() -> None:
    run(JobMachine)


def test_jobs_in_redis(tmp_path: Path) -> None:
    require_redis()
    redis = RedisServer(tmp_path, appendonly="no").start()

    class RedisJobMachine(JobMachine):
        server = redis

    try:
        run(RedisJobMachine)
    finally:
        redis.stop()
