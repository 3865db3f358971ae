"""The choices that an ablation changes, one at a time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from scpalm.training.runs.config import ConfigError


@dataclass(frozen=True)
class Variant:
    """The model with one choice changed.

    Attributes:
        name: in the table. tables: numbers of the paper's tables. network, stage1, stage2: options that differ.
        pathway_encoder: if off, the scaled read-out goes to the codes without an encoder.
    """

    name: str
    tables: tuple[int, ...]
    network: Mapping[str, str] = field(default_factory=dict)
    stage1: Mapping[str, str] = field(default_factory=dict)
    stage2: Mapping[str, str] = field(default_factory=dict)
    pathway_encoder: bool = True


# The paper's gene embedding has weights to train, the read-out that ships has none.
_MEAN = {"pooling": "mean"}

VARIANTS = (
    Variant("as it ships", (5, 6, 7)),
    Variant("pooling by mean (the paper's)", (5,), network=_MEAN),
    Variant("pooling by sum", (5,), network={"pooling": "sum"}),
    Variant(
        "value map of two layers", (5,), network=_MEAN | {"value_map": "two_layer"}, stage1={"train_embedding": "true"}
    ),
    Variant("embedding trained from its spectral start", (5,), network=_MEAN, stage1={"train_embedding": "true"}),
    Variant(
        "embedding trained from a random start",
        (5,),
        network=_MEAN,
        stage1={"train_embedding": "true", "spectral_start": "false"},
    ),
    Variant("no pathway encoder", (7,), pathway_encoder=False),
    Variant("no quantizer", (7,), stage1={"quantizer": "false"}),
    Variant("no contrastive term", (7,), stage2={"contrastive": "0"}),
)


def chosen_variants(names: Sequence[str] | None) -> list[Variant]:
    """Variants by name, all for None. The first is always included, because the others are compared with it."""
    known = {variant.name: variant for variant in VARIANTS}
    for name in names or ():
        if name not in known:
            raise ConfigError(f"Unknown variant '{name}': choose one of {', '.join(known)}.")
    return [variant for variant in VARIANTS if names is None or variant.name in names or variant is VARIANTS[0]]
