"""The client library of Triton Inference Server works with this server over a real socket."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

import anndata
import numpy as np
import pytest

from scpalm.model.bundle import Bundle
from tests.e2e.conftest import BUNDLE, Server
from tests.e2e.test_serve import embed_json

http = pytest.importorskip("tritonclient.http", reason="tritonclient is not installed")


def test_the_triton_client_gets_the_same_values(server: Server, cells: Path) -> None:
    data = anndata.read_h5ad(cells)[:40].copy()
    name = Bundle.load(BUNDLE).name
    arrays = {
        "indptr": data.X.indptr.astype(np.int64),
        "indices": data.X.indices.astype(np.int32),
        "data": data.X.data.astype(np.float32),
        "genes": np.array([gene.encode() for gene in data.var_names], dtype=np.object_),
    }
    kinds = {"indptr": "INT64", "indices": "INT32", "data": "FP32", "genes": "BYTES"}
    with http.InferenceServerClient(urlsplit(server.url).netloc) as client:
        assert client.is_server_live() and client.is_server_ready() and client.is_model_ready(name)
        assert client.get_server_metadata()["name"] == "scpalm"
        assert client.get_model_metadata(name)["inputs"][0]["name"] == "indptr"
        reference = embed_json(server, data)
        for binary in (True, False):
            inputs = [http.InferInput(key, array.shape, kinds[key]) for key, array in arrays.items()]
            for one, array in zip(inputs, arrays.values(), strict=True):
                one.set_data_from_numpy(array, binary_data=binary)
            outputs = [http.InferRequestedOutput(key, binary_data=binary) for key in ("embedding", "pathways")]
            found = client.infer(name, inputs, outputs=outputs, request_id="one")
            np.testing.assert_array_equal(found.as_numpy("embedding"), reference)
            assert found.as_numpy("pathways").dtype == np.int32 and found.get_response()["id"] == "one"
        with pytest.raises(
            http.InferenceServerException if hasattr(http, "InferenceServerException") else Exception
        ) as caught:
            client.infer(name, inputs[:2])
        assert "There is no input 'data'" in str(caught.value)
