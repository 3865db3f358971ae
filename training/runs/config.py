"""Options of both training stages: typed, checked, saved with each run, and changed by ``--set key=value``."""

from __future__ import annotations

import types
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


class ConfigError(ValueError):
    """An option that is unknown, malformed or without effect; the message names it and says what to do."""


def require_at_least(config: object, low: float, *names: str) -> None:
    """Raises ConfigError for the first of these options that is below ``low`` or infinite."""
    for name in names:
        if not low <= getattr(config, name) < float("inf"):
            raise ConfigError(f"{name} must be at least {low}, is {getattr(config, name)}.")


def require_positive(config: object, *names: str) -> None:
    """Raises ConfigError for the first of these options that is not above 0, or infinite."""
    for name in names:
        if not 0 < getattr(config, name) < float("inf"):
            raise ConfigError(f"{name} must be above 0, is {getattr(config, name)}.")


def require_below_one(config: object, *names: str) -> None:
    """Raises ConfigError for the first of these options outside [0, 1)."""
    for name in names:
        if not 0 <= getattr(config, name) < 1:
            raise ConfigError(f"{name} must lie in [0, 1), is {getattr(config, name)}.")


def require_share(config: object, *names: str) -> None:
    """Raises ConfigError for the first of these options outside [0, 1]."""
    for name in names:
        if not 0 <= getattr(config, name) <= 1:
            raise ConfigError(f"{name} must lie between 0 and 1, is {getattr(config, name)}.")


@dataclass(frozen=True)
class OptimizerConfig:
    """Options that both stages share.

    Attributes:
        steps: number of batches. batch_size: cells per batch, over all processes.
        accumulate: number of parts in which a process computes its share of a batch, one by one, to save memory.
        lr: peak of the cosine schedule. warmup_steps: linear rise of lr. weight_decay: of AdamW.
        clip: largest gradient norm.
        ema: decay of a running average of the weights, which is then evaluated and exported; 0 turns it off.
        early_stop: evaluations without a better held-out error after which training ends with the best weights; 0: off.
        tissue_power: a tissue of n cells is sampled with weight n ** power (1: cells evenly; 0: tissues evenly).
        balance_by: the column of the corpus that tissue_power balances.
        simulated_share: probability of drawing a simulated cell; without effect if the corpus has none.
        block: cells are drawn in runs of this many neighbours on disk, then shuffled; 1 draws single cells.
        workers: processes that read batches ahead. They affect the speed only.
        thin_share: share of cells whose counts are thinned before embedding (the target is not thinned).
        thin_low: smallest share of counts that thinning keeps.
        score_weight: weight of predicting the cell's standardised spectral scores, relative to the genes' values.
        seed: of everything random. checkpoint_every, evaluate_every: in steps.
        bf16: autocast to bfloat16 on a GPU. compile: torch.compile the network.
    """

    # option -> the option without which it has no effect
    needs: ClassVar[dict[str, str]] = {"thin_low": "thin_share"}

    steps: int = 1800
    batch_size: int = 128
    accumulate: int = 1
    lr: float = 1.5e-3
    warmup_steps: int = 100
    weight_decay: float = 0.01
    clip: float = 1.0
    ema: float = 0.0
    early_stop: int = 0
    tissue_power: float = 0.5
    balance_by: Literal["tissue", "dataset"] = "tissue"
    simulated_share: float = 0.35
    block: int = 1
    workers: int = 0
    thin_share: float = 0.5
    thin_low: float = 0.3
    score_weight: float = 1.0
    seed: int = 0
    checkpoint_every: int = 200
    evaluate_every: int = 200
    bf16: bool = True
    compile: bool = False

    def __post_init__(self) -> None:
        require_at_least(self, 1, "steps", "batch_size", "accumulate", "block", "checkpoint_every", "evaluate_every")
        require_at_least(self, 0, "warmup_steps", "early_stop", "workers", "seed", "weight_decay", "score_weight")
        if self.batch_size % self.accumulate:
            raise ConfigError(f"accumulate ({self.accumulate}) must divide batch_size ({self.batch_size}).")
        require_below_one(self, "ema")
        require_positive(self, "lr", "clip")
        require_share(self, "thin_share", "thin_low", "tissue_power", "simulated_share")
        self.refuse_ineffective(f.name for f in fields(self) if getattr(self, f.name) != f.default)

    def refuse_ineffective(self, names: Iterable[str]) -> None:
        """Raises ConfigError for the first of these options, which were set, that another option disables."""
        for name in names:
            switch = self.needs.get(name)
            if switch is not None and not getattr(self, switch):
                value = str(getattr(self, switch)).lower()
                raise ConfigError(f"{name} has no effect when {switch} is {value}: leave it out, or turn {switch} on.")
            if name == "balance_by" and self.tissue_power == 1:
                raise ConfigError("balance_by has no effect when tissue_power is 1: leave it out, or lower that.")


@dataclass(frozen=True)
class Stage1Config(OptimizerConfig):
    """Pathway autoencoder.

    Attributes:
        spectral_start: start the gene embedding at the corpus' top right singular vectors.
        train_embedding: off keeps the gene embedding at its spectral start. That separates cell types better than an
            embedding trained on the reconstruction (see training/LOG.md).
        quantizer: off trains a plain autoencoder (Table 7's ablation).
        quantizer_start: share of the steps after which the codes are started by k-means and used.
        commitment: weight of the quantizer's loss, relative to the reconstruction as a share of the gene-mean error.
        sync_update: share of the reconstruction's gradient that the codes receive in addition to the encoder (0: none).
        revive: move unused codes onto encoder outputs. patience: batches after which a code counts as unused.
    """

    needs: ClassVar[dict[str, str]] = OptimizerConfig.needs | {
        **dict.fromkeys(("quantizer_start", "commitment", "sync_update", "revive"), "quantizer"),
        "patience": "revive",
    }

    spectral_start: bool = True
    train_embedding: bool = False
    quantizer: bool = True
    quantizer_start: float = 0.25
    commitment: float = 1.0
    sync_update: float = 0.0
    revive: bool = True
    patience: int = 20

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.spectral_start and not self.train_embedding:
            raise ConfigError("train_embedding=false needs spectral_start=true: a random embedding must be trained.")
        require_below_one(self, "quantizer_start")
        require_share(self, "sync_update")
        require_at_least(self, 0, "commitment")
        require_at_least(self, 1, "patience")

    def refuse_ineffective(self, names: Iterable[str]) -> None:
        """As in ``OptimizerConfig``; without the quantizer, reviving codes has no effect either."""
        names = list(names)
        super().refuse_ineffective(names)
        if not self.quantizer and "patience" in names:
            raise ConfigError("patience has no effect when quantizer is false: leave it out, or turn quantizer on.")

    def refuse_ineffective_sizes(self, names: Iterable[str]) -> None:
        """Raises ConfigError for a network size that was set but has no effect in this training."""
        void = {"num_codes", "affine"}.intersection(names)
        if void and not self.quantizer:
            raise ConfigError(f"{min(void)} has no effect when quantizer is false: leave it out.")


@dataclass(frozen=True)
class Stage2Config(OptimizerConfig):
    """Cell aggregation.

    Attributes:
        token_share: share of the N tokens kept (p). view_share: share kept in the second view of the contrastive term.
        contrastive: weight of the InfoNCE term, 0 turns it off. temperature: t. negatives: maximum per cell.
        clusters: k of k-means. queue: number of h_C kept for it. queue_start: number queued before it first runs.
        refit_every: steps between fits of k-means.
        linear_start: start h_C as the best linear prediction of the scores of unseen counts from the codes.
        standardise: at export, give each coordinate of h_C mean 0 and sd 1 over the corpus.
        replicas: differently thinned copies of each cell whose codes are cached; the first is the whole cell.
    """

    needs: ClassVar[dict[str, str]] = OptimizerConfig.needs | dict.fromkeys(
        ("temperature", "negatives", "clusters", "queue", "queue_start", "refit_every"), "contrastive"
    )

    steps: int = 600
    lr: float = 3e-4
    thin_share: float = 0.7
    token_share: float = 0.9
    view_share: float = 1.0
    contrastive: float = 0.1
    temperature: float = 0.1
    negatives: int = 64
    clusters: int = 16
    queue: int = 16384
    queue_start: int = 4096
    refit_every: int = 200
    linear_start: bool = True
    standardise: bool = True
    replicas: int = 4

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.token_share < 1 or not 0 < self.view_share <= 1:
            raise ConfigError("token_share must lie in (0, 1) and view_share in (0, 1].")
        require_at_least(self, 1, "clusters", "negatives", "refit_every", "replicas")
        if not self.temperature > 0 or not self.contrastive >= 0:
            raise ConfigError("temperature must be above 0 and contrastive at least 0.")
        if not self.clusters <= self.queue_start <= self.queue:
            raise ConfigError(
                f"clusters ({self.clusters}) cannot exceed queue_start ({self.queue_start}), "
                f"nor queue_start the queue ({self.queue})."
            )
        if self.thin_share == 0 and self.replicas > 1:
            raise ConfigError("replicas has no effect when thin_share is 0: set replicas=1.")

    def refuse_ineffective(self, names: Iterable[str]) -> None:
        """As in ``OptimizerConfig``; the second view serves the contrastive term and the scores."""
        names = list(names)
        super().refuse_ineffective(names)
        if "view_share" in names and not self.contrastive and not self.score_weight:
            raise ConfigError("view_share has no effect when contrastive and score_weight are 0: leave it out.")


Config = TypeVar("Config", bound="DataclassInstance")


def override(config: Config, settings: dict[str, str]) -> Config:
    """A copy with ``key=value`` settings applied. Raises ConfigError for unknown keys and malformed values."""
    hints = get_type_hints(type(config))
    changes: dict[str, Any] = {}
    for key, text in settings.items():
        if key not in {f.name for f in fields(config)}:
            raise ConfigError(f"Unknown option '{key}'. Known: {', '.join(f.name for f in fields(config))}.")
        changes[key] = _parse(key, text, hints[key])
    try:
        changed = replace(config, **changes)
        if isinstance(changed, OptimizerConfig):
            changed.refuse_ineffective(settings)
        return changed
    except ValueError as error:
        raise ConfigError(str(error)) from error


def _parse(key: str, text: str, hint: Any) -> Any:
    if get_origin(hint) is Literal:
        if text not in get_args(hint):
            raise ConfigError(f"{key} must be one of {', '.join(get_args(hint))}, is '{text}'.")
        return text
    if get_origin(hint) in (Union, types.UnionType):
        hint = get_args(hint)[0]
    if hint is bool:
        if text.lower() not in ("true", "false"):
            raise ConfigError(f"{key} must be true or false, is '{text}'.")
        return text.lower() == "true"
    try:
        return hint(text)
    except ValueError as error:
        raise ConfigError(f"{key} must be of type {hint.__name__}, is '{text}'.") from error


def split_settings(pairs: Sequence[str], *configs: Any) -> list[dict[str, str]]:
    """Share ``key=value`` strings out to the first config that knows the key. Raises ConfigError."""
    out: list[dict[str, str]] = [{} for _ in configs]
    for pair in pairs:
        key, equals, value = pair.partition("=")
        if not equals:
            raise ConfigError(f"--set takes key=value, got '{pair}'.")
        owners = [i for i, config in enumerate(configs) if key in {f.name for f in fields(config)}]
        if not owners:
            known = sorted({f.name for config in configs for f in fields(config)})
            raise ConfigError(f"Unknown option '{key}'. Known: {', '.join(known)}.")
        out[owners[0]][key] = value
    return out


def as_dict(config: Any) -> dict[str, Any]:
    """For ``config.json``."""
    return asdict(config)
