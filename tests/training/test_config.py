from __future__ import annotations

import pytest

from model.config import NetworkConfig, preset
from training.config import ConfigError, OptimizerConfig, Stage1Config, Stage2Config, as_dict, override, split_settings

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
        (SIZES, "decoder_sees_cell", "sometimes", "must be one of none, add, prepend, is 'sometimes'"),
        (SIZES, "width", "97", "not a multiple of num_heads"),
        (SIZES, "num_codes", "40000", "16-bit"),
        (SIZES, "num_tokens", "0", "num_tokens must be at least 1"),
    ],
)
def test_a_wrong_setting_is_named(config: OptimizerConfig | NetworkConfig, key: str, value: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        override(config, {key: value})  # type: ignore[type-var]


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
def test_a_setting_that_nobody_knows(pair: str, message: str) -> None:
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
