"""Imputation: codes and f -> values of chosen genes, equal in all runtimes and for a cell in any batch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.decoder import CellDecoder
from scpalm.model.sessions.base import network_config
from scpalm.model.sessions.session import Encoded, Session, Tokens, open_session
from scpalm.model.sessions.shapes import synthetic_rows
from tests.training.tiny import NUM_GENES

RUNTIMES = ("onnx", "torch", "torchscript")


def encoded_of(bundle: Bundle, num_cells: int) -> Encoded:
    """Cells with random codes and scores."""
    config, random = network_config(bundle), np.random.default_rng(0)
    codes = random.integers(0, config.num_codes, (num_cells, config.num_tokens)).astype(np.int32)
    f = random.normal(size=(num_cells, config.components)).astype(np.float32) / config.components**0.5
    log_length = random.normal(3, 0.3, size=(num_cells, 1)).astype(np.float32)
    tokens = Tokens(np.zeros((num_cells, config.width), np.float32), codes)
    return Encoded(synthetic_rows(config.num_genes, num_cells), f, log_length, config.components, tokens)


@pytest.fixture(scope="module", params=RUNTIMES)
def session(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Session:
    return open_session(tiny_bundle, runtime=request.param, device="cpu", threads=2)


def test_values_equal_those_of_the_trained_decoder(session: Session, tiny_bundle: Bundle) -> None:
    cells = encoded_of(tiny_bundle, 5)
    stored = {name: tensor.float() for name, tensor in load_file(tiny_bundle.file("weights.safetensors")).items()}
    network = CellDecoder(network_config(tiny_bundle))
    network.load_state_dict({name: stored[name] for name in network.state_dict()})
    with torch.inference_mode():
        tokens = stored["code_tokens"][torch.from_numpy(cells.codes).long()]
        literal = network(tokens, torch.from_numpy(cells.f.copy()), torch.from_numpy(cells.log_length)).numpy()
    values = session.impute(cells, np.arange(NUM_GENES))
    assert values.shape == (5, NUM_GENES) and values.dtype == np.float32
    np.testing.assert_allclose(values, literal, rtol=0, atol=1e-5)


def test_values_depend_on_codes_f_and_length(session: Session, tiny_bundle: Bundle) -> None:
    cells = encoded_of(tiny_bundle, 5)
    values = session.impute(cells, np.arange(NUM_GENES))
    for changed in (
        replace(cells, embedding=-cells.embedding),
        replace(cells, log_length=cells.log_length + 0.5),
        replace(cells, tokens=Tokens(cells.h_C, cells.codes[::-1])),
    ):
        assert np.abs(session.impute(changed, np.arange(NUM_GENES)) - values).max() > 1e-3


def test_values_do_not_depend_on_other_cells_or_genes(tiny_bundle: Bundle) -> None:
    session = open_session(tiny_bundle, device="cpu", threads=2)
    cells = encoded_of(tiny_bundle, 37)
    values = session.impute(cells, np.arange(NUM_GENES))
    single = [session.impute(cells.slice(row, row + 1), np.arange(NUM_GENES)) for row in range(37)]
    np.testing.assert_array_equal(np.concatenate(single), values)
    some = np.array([NUM_GENES - 1, 3, 3, 0])
    np.testing.assert_array_equal(session.impute(cells.slice(20, 37), some), values[20:, some])


def test_no_genes_give_no_columns(session: Session, tiny_bundle: Bundle) -> None:
    assert session.impute(encoded_of(tiny_bundle, 3), np.array([], dtype=np.int64)).shape == (3, 0)


def test_a_bundle_without_its_decoder_is_refused(tiny_bundle: Bundle) -> None:
    manifest = {**tiny_bundle.manifest, "files": dict(tiny_bundle.manifest["files"])}
    del manifest["files"]["impute.onnx"]
    session = open_session(Bundle(tiny_bundle.path, manifest), device="cpu")
    with pytest.raises(BundleError, match=r"impute\.onnx"):
        session.impute(encoded_of(tiny_bundle, 1), np.arange(3))
