"""Imputation: codes -> values of chosen genes, equal in both runtimes and independent of the rest of the batch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file

from scpalm.model.bundle import Bundle
from scpalm.model.errors import BundleError
from scpalm.model.network.pathways import PathwayAutoencoder
from scpalm.model.sessions.base import network_config
from scpalm.model.sessions.session import Session, open_session
from tests.training.tiny import NUM_GENES

RUNTIMES = ("onnx", "torchscript")


def codes_of(bundle: Bundle, cells: int) -> NDArray[np.int32]:
    config = network_config(bundle)
    random = np.random.default_rng(0)
    return random.integers(0, config.num_codes, (cells, config.num_tokens)).astype(np.int32)


@pytest.fixture(scope="module", params=RUNTIMES)
def session(request: pytest.FixtureRequest, tiny_bundle: Bundle) -> Session:
    return open_session(tiny_bundle, runtime=request.param, device="cpu", threads=2)


def test_values_equal_those_of_stage_one(session: Session, tiny_bundle: Bundle) -> None:
    codes, genes = codes_of(tiny_bundle, 5), np.arange(NUM_GENES)
    stored = {name: tensor.float() for name, tensor in load_file(tiny_bundle.file("weights.safetensors")).items()}
    network = PathwayAutoencoder(network_config(tiny_bundle))
    wanted = network.state_dict()
    network.load_state_dict({name: stored.get(name, tensor) for name, tensor in wanted.items()})
    with torch.inference_mode():
        literal = network.decode(stored["code_tokens"][torch.from_numpy(codes).long()]).numpy()
    values = session.impute(codes, genes)
    assert values.shape == (5, NUM_GENES) and values.dtype == np.float32
    np.testing.assert_allclose(values, literal, rtol=0, atol=1e-5)


def test_values_do_not_depend_on_other_cells_or_genes(tiny_bundle: Bundle) -> None:
    session = open_session(tiny_bundle, device="cpu", threads=2)
    codes = codes_of(tiny_bundle, 37)
    values = session.impute(codes, np.arange(NUM_GENES))
    alone = np.concatenate([session.impute(codes[row : row + 1], np.arange(NUM_GENES)) for row in range(37)])
    np.testing.assert_array_equal(alone, values)
    some = np.array([NUM_GENES - 1, 3, 3, 0])
    np.testing.assert_array_equal(session.impute(codes[::-1], some), values[::-1][:, some])


def test_no_genes_give_no_columns(session: Session, tiny_bundle: Bundle) -> None:
    assert session.impute(codes_of(tiny_bundle, 3), np.array([], dtype=np.int64)).shape == (3, 0)


def test_a_bundle_without_its_decoder_is_refused(tiny_bundle: Bundle) -> None:
    manifest = {**tiny_bundle.manifest, "files": dict(tiny_bundle.manifest["files"])}
    del manifest["files"]["impute.onnx"]
    session = open_session(Bundle(tiny_bundle.path, manifest), device="cpu")
    with pytest.raises(BundleError, match=r"impute\.onnx"):
        session.impute(codes_of(tiny_bundle, 1), np.arange(3))
