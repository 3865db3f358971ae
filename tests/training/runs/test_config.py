from __future__ import annotations

import pytest

from scpalm.model.network.config import NetworkConfig, preset
from scpalm.training.runs.config import (
    ConfigError,
    OptimizerConfig,
    Stage1Config,
    Stage2Config,
    as_dict,
    override,
    split_settings,
)

SIZES = preset("mini", 1000)


def test_settings_become_values_of_their_type() -> None:
    config = override(Stage1Config(), {"steps": "7", "lr": "2e-3", "quantizer": "False", "spectral_start": "TRUE"})
    assert (config.steps, config.lr, config.quantizer, config.spectral_start) == (7, 2e-3, False, True)
    assert config.batch_size == Stage1Config().batch_size
    assert override(SIZES, {"decoder_sees_cell": "prepend"}).decoder_sees_cell == "prepend"


@pytest.mark.parametrize(
    "config, key, value, message",
    [
        (Stage1Config(), "stepz", "7", "Unknown option 'stepz'. Known: .*steps"),
        (Stage1Config(), "steps", "many", "steps must be of type int, is 'many'"),
        (Stage1Config(), "steps", "1.5", "steps must be of type int"),
        (Stage1Config(), "lr", "fast", "lr must be of type float"),
        (Stage1Config(), "quantizer", "yes", "quantizer must be true or false, is 'yes'"),
        (Stage1Config(), "steps", "0", "steps must be at least 1, is 0"),
        (Stage1Config(), "batch_size", "-1", "batch_size must be at least 1"),
        (Stage1Config(), "lr", "0", "lr must be above 0"),
        (Stage1Config(), "lr", "nan", "lr must be above 0"),
        (Stage1Config(), "clip", "inf", "clip must be above 0"),
        (Stage1Config(), "thin_share", "1.5", "thin_share must lie between 0 and 1"),
        (Stage1Config(), "tissue_power", "nan", "tissue_power must lie between 0 and 1"),
        (Stage1Config(), "quantizer_start", "1", "quantizer_start must lie in"),
        (Stage1Config(), "spectral_start", "false", "needs spectral_start=true"),
        (Stage2Config(), "token_share", "1", "token_share must lie in"),
        (Stage2Config(), "view_share", "0", "view_share in"),
        (Stage2Config(), "clusters", "5000", "cannot exceed queue_start"),
        (Stage2Config(), "queue", "100", "nor queue_start the queue"),
        (Stage2Config(), "negatives", "0", "negatives must be at least 1"),
        (Stage2Config(), "temperature", "0", "temperature must be above 0"),
        (Stage2Config(), "contrastive", "-1", "contrastive at least 0"),
        (Stage2Config(), "thin_share", "0", "set replicas=1"),
        (Stage1Config(), "needs", "x", "Unknown option 'needs'"),
        (Stage1Config(), "accumulate", "3", r"accumulate \(3\) must divide batch_size \(128\)"),
        (Stage1Config(), "ema", "1", r"ema must lie in \[0, 1\)"),
        (Stage1Config(), "early_stop", "-1", "early_stop must be at least 0"),
        (Stage1Config(), "workers", "-1", "workers must be at least 0"),
        (Stage1Config(), "balance_by", "donor", "balance_by must be one of tissue, dataset"),
        (Stage1Config(), "sync_update", "2", "sync_update must lie between 0 and 1"),
        (Stage1Config(), "commitment", "-1", "commitment must be at least 0"),
        (Stage1Config(), "score_weight", "nan", "score_weight must be at least 0"),
        (Stage1Config(), "patience", "0", "patience must be at least 1"),
        (SIZES, "value_map", "three", "value_map must be one of linear, two_layer"),
        (SIZES, "code_width", "-1", "code_width must be at least 0"),
        (SIZES, "decoder_sees_cell", "sometimes", "must be one of none, add, prepend, is 'sometimes'"),
        (SIZES, "width", "97", "not a multiple of num_heads"),
        (SIZES, "num_codes", "40000", "16-bit"),
        (SIZES, "num_tokens", "0", "num_tokens must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(config: OptimizerConfig | NetworkConfig, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(config, {key: value})


@pytest.mark.parametrize(
    "config, settings, message",
    [
        (Stage1Config(), {"quantizer": "false", "patience": "20"}, "patience has no effect when quantizer is false"),
        (Stage1Config(), {"quantizer": "false", "commitment": "1"}, "commitment has no effect when quantizer is false"),
        (Stage1Config(), {"quantizer": "false", "quantizer_start": "0.5"}, "quantizer_start has no effect"),
        (Stage1Config(), {"quantizer": "false", "sync_update": "0.1"}, "sync_update has no effect"),
        (Stage1Config(), {"quantizer": "false", "revive": "false"}, "revive has no effect"),
        (Stage1Config(), {"revive": "false", "patience": "5"}, "patience has no effect when revive is false"),
        (Stage1Config(), {"thin_share": "0", "thin_low": "0.3"}, "thin_low has no effect when thin_share is 0.0"),
        (Stage1Config(), {"tissue_power": "1", "balance_by": "tissue"}, "balance_by has no effect"),
        *(
            (Stage2Config(), {"contrastive": "0", name: str(getattr(Stage2Config(), name))}, f"{name} has no effect")
            for name in ("temperature", "negatives", "clusters", "queue", "queue_start", "refit_every")
        ),
        (Stage2Config(), {"contrastive": "0", "score_weight": "0", "view_share": "0.5"}, "view_share has no effect"),
    ],
)
def test_a_setting_without_effect_is_refused(config: OptimizerConfig, settings: dict[str, str], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(config, settings)
    rest = {name: value for name, value in settings.items() if name not in message.split()[0]}
    override(config, rest)


def test_a_size_without_effect_is_refused() -> None:
    with pytest.raises(ConfigError, match="affine has no effect when quantizer is false"):
        Stage1Config(quantizer=False).refuse_ineffective_sizes(["width", "affine"])
    Stage1Config(quantizer=False).refuse_ineffective_sizes(["width"])
    Stage1Config().refuse_ineffective_sizes(["affine", "num_codes"])


def test_settings_go_to_the_config_that_knows_them() -> None:
    pairs = ["width=32", "lr=0.1", "num_codes=8", "seed=3"]
    assert split_settings(pairs, SIZES, Stage1Config()) == [
        {"width": "32", "num_codes": "8"},
        {"lr": "0.1", "seed": "3"},
    ]
    assert split_settings([], SIZES, Stage1Config()) == [{}, {}]


def test_a_value_may_hold_an_equals_sign() -> None:
    assert split_settings(["lr=a=b"], Stage1Config()) == [{"lr": "a=b"}]


@pytest.mark.parametrize("pair, message", [("lr", "--set takes key=value"), ("nothing=1", "Unknown option 'nothing'")])
def test_an_unknown_setting_is_refused(pair: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        split_settings([pair], SIZES, Stage1Config())


def test_a_config_goes_through_its_dictionary() -> None:
    for config in (Stage1Config(lr=0.5, steps=3), Stage2Config(queue=8192)):
        assert type(config)(**as_dict(config)) == config
    assert NetworkConfig(**SIZES.as_dict()) == SIZES  # type: ignore[arg-type]


def test_an_unknown_preset_names_the_known() -> None:
    with pytest.raises(ValueError, match="Unknown preset 'huge': choose base or mini"):
        preset("huge", 1000)


def test_the_base_preset_is_the_papers() -> None:
    base = preset("base", 30_000)
    assert (base.num_tokens, base.width, base.num_layers, base.num_heads, base.num_codes) == (256, 256, 6, 8, 128)
    assert base.genes_per_token == 118
