"""A run: the members of one split, by inputs, setting and seed. Each is saved, so that a stopped run can resume."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import Standardizer
from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.network import DrugResponseNetwork, GraphTensors
from scpalm.model.molecules.graph import batch_graphs
from scpalm.training.drug_response.addition import train_addition
from scpalm.training.drug_response.config import DrugTrainingConfig, Inputs, Setting
from scpalm.training.drug_response.data.splits import Split, make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.features import LineEmbeddings, LineFeatures, line_features
from scpalm.training.drug_response.member import train_member
from scpalm.training.drug_response.steps import MemberTask
from scpalm.training.drug_response.tuning import tune
from scpalm.training.runs.config import ConfigError
from scpalm.training.runs.run import RunError, write_atomically

PARTS = ("validation", "calibration", "test")


@dataclass(frozen=True)
class Variant:
    """What varies within a run: the inputs that describe the cell, and the additional branches."""

    inputs: Inputs
    setting: Setting

    @property
    def name(self) -> str:
        return self.inputs if self.setting == "expression" else f"{self.inputs} {SETTINGS[self.setting]}"

    @property
    def before(self) -> Variant | None:
        """The same variant with one branch fewer, or None."""
        at = get_args(Setting).index(self.setting)
        return Variant(self.inputs, get_args(Setting)[at - 1]) if at else None

    @property
    def folder(self) -> str:
        return f"{self.inputs}-{self.setting}".replace("+", "_")


SETTINGS = {"mutation": "+ mutation", "methylation": "+ mutation + methylation"}


@dataclass(frozen=True, eq=False)
class Outcome:
    """One saved member: predictions (ln uM) for the rows of each part of its split, and its file of weights."""

    variant: Variant
    seed: int
    predicted: dict[str, NDArray[np.float32]]
    weights: Path
    record: dict[str, Any]

    def network(self) -> DrugResponseNetwork:
        """In ``eval()``. Raises RunError when the file does not fit."""
        try:
            config = DrugResponseConfig.from_dict(self.record["network"])
            network = DrugResponseNetwork(config)
            stored = {
                k: torch.from_numpy(v) for k, v in load_file(self.weights).items() if not k.startswith("standard")
            }
            network.load_state_dict(stored)
        except (OSError, ValueError, KeyError, RuntimeError, SafetensorError) as error:
            raise RunError(f"{self.weights} does not load ({error}). Remove it and run again with --resume.") from error
        return network.eval().requires_grad_(requires_grad=False)

    def standards(self) -> dict[str, Standardizer]:
        stored = load_file(self.weights)
        names = [key.split(".")[1] for key in stored if key.startswith("standard.") and key.endswith(".mean")]
        return {name: Standardizer(stored[f"standard.{name}.mean"], stored[f"standard.{name}.sd"]) for name in names}


class DrugRun:
    """``RUN/config.json`` and ``RUN/<inputs>-<setting>/seed-<k>/``: ``weights.safetensors``, ``predicted.npz``,
    ``member.json`` (written last: a member without it does not count)."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def start(self, record: dict[str, Any], *, resume: bool) -> None:
        """Create the folder, or check that a resumed run has the same options.

        Raises RunError for an existing run without ``resume``, and for a missing or different one with it.
        """
        file = self.path / "config.json"
        if not file.exists():
            if resume:
                raise RunError(f"{self.path} holds no run to resume. Leave --resume out.")
            self.path.mkdir(parents=True, exist_ok=True)
            write_atomically(file, json.dumps(record, indent=1).encode())
            return
        if not resume:
            raise RunError(f"{self.path} holds a run already. Continue it with --resume, or choose another folder.")
        kept = self.record()
        for key, value in json.loads(json.dumps(record)).items():
            if kept.get(key) != value:
                raise RunError(
                    f"{self.path} was made with {key}={kept.get(key)}, not {value}. Choose another folder, or the same "
                    "options."
                )

    def record(self) -> dict[str, Any]:
        try:
            record: dict[str, Any] = json.loads((self.path / "config.json").read_text())
        except (OSError, ValueError) as error:
            raise RunError(f"{self.path} is not a drug response run ({error}).") from error
        if "split" not in record or "training" not in record:
            raise RunError(f"{self.path} is not a drug response run: its config.json has no split.")
        return record

    def member(self, variant: Variant, seed: int) -> Outcome | None:
        folder = self.path / variant.folder / f"seed-{seed}"
        if not (folder / "member.json").exists():
            return None
        try:
            record = json.loads((folder / "member.json").read_text())
            with np.load(folder / "predicted.npz", allow_pickle=False) as stored:
                predicted = {part: stored[part] for part in PARTS}
        except (OSError, ValueError, KeyError) as error:
            raise RunError(f"{folder} cannot be read ({error}). Remove it and run again with --resume.") from error
        return Outcome(variant, seed, predicted, folder / "weights.safetensors", record)

    def members(self, variant: Variant) -> list[Outcome]:
        """All finished members, by seed."""
        folders = (self.path / variant.folder).glob("seed-*")
        seeds = sorted(int(folder.name.removeprefix("seed-")) for folder in folders)
        return [outcome for seed in seeds if (outcome := self.member(variant, seed)) is not None]

    def save(
        self,
        variant: Variant,
        seed: int,
        network: DrugResponseNetwork,
        features: LineFeatures,
        record: dict[str, Any],
        predicted: dict[str, NDArray[np.float32]],
    ) -> None:
        """Write a member's folder; ``record`` goes into ``member.json``."""
        folder = self.path / variant.folder / f"seed-{seed}"
        folder.mkdir(parents=True, exist_ok=True)
        tensors = {name: np.asarray(value.contiguous().numpy()) for name, value in network.state_dict().items()}
        for name, standard in features.standards.items():
            tensors |= {f"standard.{name}.mean": standard.mean, f"standard.{name}.sd": standard.sd}
        save_file(tensors, str(folder / "weights.safetensors"))
        np.savez(folder / "predicted.npz", allow_pickle=False, **predicted)
        write_atomically(folder / "member.json", json.dumps(record, indent=1).encode())


def variants_of(inputs: Sequence[str], settings: Sequence[str]) -> list[Variant]:
    """Every combination. Raises ConfigError for an unknown name."""
    for given, kind, option in ((inputs, Inputs, "--inputs"), (settings, Setting, "--settings")):
        for name in given:
            if name not in get_args(kind):
                raise ConfigError(f"{option}: unknown '{name}': choose one of {', '.join(get_args(kind))}.")
    return [Variant(i, s) for i in inputs for s in settings]  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Experiment:
    """A run, and what its members are trained on."""

    run: DrugRun
    tables: Tables
    bundle: Bundle
    lines: LineEmbeddings
    config: DrugTrainingConfig

    def train(
        self,
        split_name: str,
        variants: Sequence[Variant],
        seeds: Sequence[int],
        progress: Callable[[str, str, float, float], None] = lambda name, stage, step, rmse: None,
    ) -> Iterator[Outcome]:
        """Train the members that are missing; yields every member, seed by seed."""
        for seed in seeds:
            split = make_split(self.tables, split_name, seed)
            for variant in variants:
                yield self.run.member(variant, seed) or self._train(split, variant, seed, progress)

    def _train(
        self, split: Split, variant: Variant, seed: int, progress: Callable[[str, str, float, float], None]
    ) -> Outcome:
        tables, lines = self.tables, self.lines
        own = replace(self.config, inputs=variant.inputs, setting=variant.setting)
        report = partial(progress, f"{variant.name}, seed {seed}")
        features = line_features(tables, lines, variant.inputs, variant.setting, np.unique(tables.line_of[split.train]))
        task = MemberTask(tables, features, split, own, seed)
        if (before := variant.before) is not None and self.config.extras == "added":
            # This variant extends the one before it, which is trained and saved first.
            base = self.run.member(before, seed) or self._train(split, before, seed, progress)
            member = train_addition(base.network(), task, report)
            history = [*base.record["history"], *member.history]
        else:
            member = train_member(task, report)
            history = member.history
        if self.config.fine_tune:
            member, features = tune(member.network, self.bundle, lines, task, report)
            history = [*history, *member.history]
        predicted = {part: predict(member.network, tables, features, getattr(split, part)) for part in PARTS}
        record = {"network": member.network.config.as_dict(), "history": history}
        self.run.save(variant, seed, member.network, features, record, predicted)
        saved = self.run.member(variant, seed)
        assert saved is not None
        return saved


def predict(
    network: DrugResponseNetwork, tables: Tables, features: LineFeatures, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    """ln IC50 (uM) of ``rows``."""
    graphs = GraphTensors(batch_graphs(tables.graphs), network.config.pooling)
    line_of, drug_of = torch.from_numpy(tables.line_of[rows]), torch.from_numpy(tables.drug_of[rows])
    return network.predict(features.tensors, graphs, line_of, drug_of).numpy()


def run_record(tables: Tables, bundle: Bundle, split: str, config: DrugTrainingConfig) -> dict[str, Any]:
    """The options that a resumed run must share."""
    return {
        "split": split,
        "bundle": {"name": bundle.name, "version": bundle.version, "files": encoder_files(bundle)},
        "rows": tables.num_rows,
        "structures": tables.structures,
        "training": config.as_dict(),
    }


def encoder_files(bundle: Bundle) -> dict[str, str]:
    """sha256 of the files that determine h_C."""
    names = ("embed.onnx", "genes.parquet", "weights.safetensors")
    return {name: bundle.manifest["files"][name]["sha256"] for name in names if name in bundle.manifest["files"]}
