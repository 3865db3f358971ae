from __future__ import annotations

import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from scpalm.training.evaluation.common.embeddings import BundleEmbeddings
from tests.training.bundles import Exported
from tests.training.evaluation.cells import matrix_of
from tests.training.tiny import SIZES, tiny_counts


@pytest.fixture(scope="module")
def source(tiny_export: Exported) -> BundleEmbeddings:
    return BundleEmbeddings(Bundle.load(tiny_export.bundle))


def test_widths_of_all_methods_and_parts_of_the_embedding(source: BundleEmbeddings) -> None:
    matrix = matrix_of(tiny_counts(50, seed=3))
    arrays = {method: source.embed(method, matrix) for method in source.methods}
    R, H, N, D = SIZES.components, arrays["embedding"].shape[1] - SIZES.components, SIZES.num_tokens, SIZES.width
    widths = {"embedding": R + H, "basis": R, "h_C": D, "mean_tokens": D, "concat_tokens": N * D, "readout": N}
    assert {name: array.shape for name, array in arrays.items()} == {
        name: (50, width) for name, width in (widths | {"untrained": D}).items()
    }
    np.testing.assert_array_equal(arrays["embedding"][:, :R], arrays["basis"])
    np.testing.assert_allclose(np.linalg.norm(arrays["basis"], axis=1), 1, rtol=1e-5)
    np.testing.assert_array_equal(source.embed("untrained", matrix), arrays["untrained"])


def test_readout_is_what_the_encoder_of_the_bundle_sees(source: BundleEmbeddings) -> None:
    matrix = matrix_of(tiny_counts(50, seed=3))
    network, f = source._network, source.embed("basis", matrix)
    N = SIZES.num_tokens
    expected = f[:, : N - 1] * network.read_scale.numpy()[: N - 1] + network.read_shift.numpy()[: N - 1]
    np.testing.assert_allclose(source.embed("readout", matrix)[:, : N - 1], expected, atol=1e-3)


def test_an_unknown_method_is_refused(source: BundleEmbeddings) -> None:
    with pytest.raises(ValueError, match="Unknown method 'umap'"):
        source.embed("umap", matrix_of(tiny_counts(5, seed=3)))
