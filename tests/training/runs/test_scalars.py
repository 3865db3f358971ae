from __future__ import annotations

import pytest
import torch

from scpalm.training.runs.run import RunError
from scpalm.training.runs.scalars import Scalars

ONE = torch.tensor(1.0)


def test_the_last_step_is_read_with_its_own_names() -> None:
    scalars = Scalars()
    assert scalars.read() == {}
    scalars.add(0, {"mse": torch.tensor(0.5)}, ONE, {"lr": 0.1})
    scalars.add(1, {"mse": torch.tensor(0.25), "contrastive": torch.tensor(2)}, ONE, {"lr": 0.2})
    assert len(scalars) == 2
    assert scalars.read() == {"mse": 0.25, "contrastive": 2.0, "lr": 0.2}
    assert len(scalars) == 0
    assert scalars.read() == {"mse": 0.25, "contrastive": 2.0, "lr": 0.2}


@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_the_first_step_that_was_not_finite_is_named(value: str) -> None:
    scalars = Scalars()
    for step, check in enumerate((1.0, 1.0, float(value), float("nan"), 1.0), start=7):
        scalars.add(step, {"mse": ONE}, torch.tensor(check), {})
    with pytest.raises(RunError, match="not finite at step 9"):
        scalars.read()
