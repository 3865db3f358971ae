from __future__ import annotations

import numpy as np
import pytest

from scpalm.training.drug_response.interval import calibrate


def test_intervals_cover_new_rows_at_the_nominal_level() -> None:
    """Skewed errors whose size differs a hundredfold between rows, and members that barely reflect it."""
    random = np.random.default_rng(0)
    held = []
    for _ in range(40):
        truth, scale = random.normal(0, 3, 1400), 10 ** random.uniform(-1, 1, 1400)
        base = truth + random.gamma(1, 1, 1400) * scale
        members = base + random.normal(0, 0.3, (5, 1400)) * np.sqrt(scale)
        interval = calibrate(members[:, :400], truth[:400], 0.9)
        lower, upper = interval.around(members[:, 400:])
        held.append(((lower <= truth[400:]) & (truth[400:] <= upper)).mean())
    # sd of one coverage with 400 calibration rows: sqrt(0.9 * 0.1 / 400) = 0.015
    assert abs(np.mean(held) - 0.9) < 0.01


def test_the_quantile_is_the_conformal_one() -> None:
    members = np.zeros((2, 9))
    interval = calibrate(members, np.arange(1.0, 10.0), 0.9)  # ceil(10 * 0.9) = the ninth of nine
    assert interval.quantile == 9.0 and interval.spread == 1.0
    lower, upper = interval.around(members[:, :1])
    assert (lower[0], upper[0]) == (-9.0, 9.0)


def test_members_that_differ_get_a_wider_interval() -> None:
    random = np.random.default_rng(1)
    interval = calibrate(random.normal(0, 1, (4, 200)), np.zeros(200))
    lower, upper = interval.around(np.array([[0.0, -3.0], [0.0, 3.0]]))
    assert upper[1] - lower[1] > 2 * (upper[0] - lower[0]) > 0


def test_too_few_rows_are_refused() -> None:
    with pytest.raises(ValueError, match="8 calibration rows are too few"):
        calibrate(np.zeros((2, 8)), np.zeros(8), 0.9)
