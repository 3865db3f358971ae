from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from scpalm.model.network.config import NetworkConfig
from scpalm.training.runs.config import ConfigError, OptimizerConfig, Stage1Config
from scpalm.training.runs.run import Run, RunError, check_finite, make_optimizer, pick_device, set_lr
from tests.training.runs.full_disk import files_of_at_most


@pytest.fixture
def run(tmp_path: Path) -> Run:
    run = Run(tmp_path / "run")
    run.create({"network": {"num_genes": 7}, "stage1": {"steps": 3}})
    return run


def test_a_checkpoint_comes_back_bit_for_bit(run: Run) -> None:
    tensor = torch.randn(5)
    assert not run.has_checkpoint("stage1")
    run.save_checkpoint("stage1", {"step": 3, "x": tensor})
    assert run.has_checkpoint("stage1")
    loaded = run.load_checkpoint("stage1")
    assert loaded["step"] == 3
    assert torch.equal(loaded["x"], tensor)


def test_a_full_disk_keeps_the_previous_checkpoint(run: Run) -> None:
    run.save_checkpoint("stage1", {"step": 1})
    with (
        files_of_at_most(10_000),
        pytest.raises(RunError, match=r"could not be written.*previous checkpoint is intact"),
    ):
        run.save_checkpoint("stage1", {"step": 2, "x": torch.randn(100_000)})
    assert run.load_checkpoint("stage1") == {"step": 1}
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "stage1.pt"]


def test_a_checkpoint_is_replaced_not_written_over(run: Run) -> None:
    run.save_checkpoint("stage1", {"step": 1})
    with (run.path / "stage1.pt").open("rb") as before:
        run.save_checkpoint("stage1", {"step": 2})
        assert torch.load(before, weights_only=True) == {"step": 1}
    assert run.load_checkpoint("stage1") == {"step": 2}


def test_an_interrupted_write_keeps_the_previous_checkpoint(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    run.save_checkpoint("stage1", {"step": 1})

    def killed(state: object, file: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(torch, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        run.save_checkpoint("stage1", {"step": 2})
    assert run.load_checkpoint("stage1") == {"step": 1}


@pytest.mark.parametrize("content", [b"", b"no checkpoint", None])
def test_a_damaged_checkpoint_is_a_run_error(run: Run, content: bytes | None) -> None:
    run.save_checkpoint("stage1", {"x": torch.randn(1000)})
    path = run.path / "stage1.pt"
    path.write_bytes(path.read_bytes()[:2000] if content is None else content)
    with pytest.raises(RunError, match=r"stage1\.pt cannot be read"):
        run.load_checkpoint("stage1")


def test_a_checkpoint_cannot_run_code(run: Run) -> None:
    torch.save({"x": Path("/etc")}, run.path / "stage1.pt")
    with pytest.raises(RunError, match="cannot be read"):
        run.load_checkpoint("stage1")


def test_a_missing_checkpoint_says_what_to_do(run: Run) -> None:
    with pytest.raises(RunError, match="Train the stage first"):
        run.load_checkpoint("stage2")


def test_a_checkpoint_of_another_network_is_a_run_error(run: Run) -> None:
    run.save_checkpoint("stage1", {"model": nn.Linear(3, 3).state_dict()})
    same = nn.Linear(3, 3)
    run.fill(same, "stage1", "model")
    assert torch.equal(same.weight, run.load_checkpoint("stage1")["model"]["weight"])
    for module, part in ((nn.Linear(4, 3), "model"), (same, "encoder")):
        with pytest.raises(RunError, match="does not fit the network"):
            run.fill(module, "stage1", part)


def test_a_folder_that_holds_a_run_is_not_started_again(run: Run) -> None:
    with pytest.raises(RunError, match=r"already holds a run.*--resume"):
        run.create({})
    assert run.config()["stage1"] == {"steps": 3}


def test_a_folder_without_a_run(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"is not a run.*scpalm-train pathways"):
        Run(tmp_path).config()


def test_sections_become_their_configs(run: Run) -> None:
    assert run.section("network", NetworkConfig) == NetworkConfig(num_genes=7)
    assert run.section("stage1", Stage1Config) == Stage1Config(steps=3)


@pytest.mark.parametrize("content", [{}, {"stage1": {"stepz": 3}}, {"stage1": {"steps": 0}}, {"stage1": 3}])
def test_a_section_that_does_not_fit_is_named(run: Run, content: dict[str, object]) -> None:
    (run.path / "config.json").write_text(json.dumps(content))
    with pytest.raises(RunError, match=r"config\.json has no valid 'stage1'"):
        run.section("stage1", Stage1Config)


def test_curves_are_lines_of_json_and_events(run: Run) -> None:
    curves = run.curves("stage1")
    curves.add(1, {"mse": 0.5})
    curves.add(2, {"mse": 0.25, "lr": 0.1})
    curves.close()
    lines = [json.loads(line) for line in (run.path / "curves.jsonl").read_text().splitlines()]
    assert lines == [
        {"stage": "stage1", "step": 1, "mse": 0.5},
        {"stage": "stage1", "step": 2, "mse": 0.25, "lr": 0.1},
    ]
    assert list((run.path / "tensorboard" / "stage1").glob("events.out.tfevents.*"))


def test_the_rate_rises_then_falls_to_a_twentieth() -> None:
    config = OptimizerConfig(steps=100, warmup_steps=10, lr=2.0)
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    rates = [set_lr(optimizer, config, step) for step in range(100)]
    assert rates[0] == pytest.approx(0.2)
    assert max(rates) == rates[9] == rates[10] == pytest.approx(2.0)
    assert rates[10:] == sorted(rates[10:], reverse=True)
    assert rates[-1] == pytest.approx(0.1, rel=0.02)
    assert set_lr(optimizer, config, 1000) == pytest.approx(0.1)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1)


def test_only_matrices_of_linear_layers_decay() -> None:
    linear = nn.Linear(3, 3)
    module = nn.Sequential(linear, nn.LayerNorm(3))
    module.register_parameter("table", nn.Parameter(torch.randn(4, 4)))
    frozen = nn.Linear(3, 3).requires_grad_(requires_grad=False)
    optimizer = make_optimizer([module, frozen], OptimizerConfig(weight_decay=0.5))
    decayed, others = optimizer.param_groups
    assert (decayed["weight_decay"], others["weight_decay"]) == (0.5, 0.0)
    assert [p.data_ptr() for p in decayed["params"]] == [linear.weight.data_ptr()]
    assert len(others["params"]) == 4


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_non_finite_loss_is_a_run_error(value: float) -> None:
    with pytest.raises(RunError, match=r"not finite at step 7.*train again with lower lr"):
        check_finite(value, 7)
    check_finite(1.0, 7)


def test_devices() -> None:
    assert pick_device("cpu") == torch.device("cpu")
    assert pick_device("auto").type in ("cpu", "cuda")


@pytest.mark.parametrize("name", ["tpu", "", "cuda:x", "cuda:4096", "meta"])
def test_an_absent_device_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match="--device"):
        pick_device(name)
