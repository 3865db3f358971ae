"""Almost valid bodies: seeded damage to bytes, JSON members, HDF5 objects and Arrow columns."""

from __future__ import annotations

import gzip
import io
import json
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pyarrow as pa
import zstandard
from scipy import sparse

GENES = [f"GENE{n}" for n in range(40)]
NUM_CELLS = 6
JSON, H5AD, ARROW = "application/json", "application/x-hdf5", "application/vnd.apache.arrow.stream"

_ODD: tuple[Any, ...] = (
    None, True, -1, 0, 1, 2**31, 2**63, -(2**63), 1e308, -0.5, float("nan"), float("inf"), "", "GENE1", "\0",
    "x" * 3000, "\ud800", [], {}, [[1]], {"a": 1},
)  # fmt: skip


@dataclass(frozen=True)
class Sample:
    """A body with its headers. ``what`` describes the damage, for messages."""

    what: str
    body: bytes
    headers: dict[str, str]


def counts() -> sparse.csr_matrix:
    table = np.random.default_rng(0).poisson(0.7, (NUM_CELLS, len(GENES))).astype(np.float32)
    table[:, 0] = 1
    return sparse.csr_matrix(table)


def good_json() -> dict[str, Any]:
    matrix = counts()
    return {
        "genes": list(GENES),
        "obs_names": [f"cell{n}" for n in range(NUM_CELLS)],
        "indptr": matrix.indptr.tolist(),
        "indices": matrix.indices.tolist(),
        "data": matrix.data.tolist(),
    }


def good_h5ad() -> bytes:
    import anndata

    with tempfile.TemporaryDirectory() as folder:
        cells = anndata.AnnData(counts())
        cells.obs_names, cells.var_names = [f"cell{n}" for n in range(NUM_CELLS)], GENES
        cells.obs["kind"] = ["a", "b"] * (NUM_CELLS // 2)
        cells.layers["counts"] = counts().tocsc()
        cells.write_h5ad(Path(folder, "cells.h5ad"))
        return Path(folder, "cells.h5ad").read_bytes()


def good_arrow(genes: str | None = None, **columns: pa.Array) -> bytes:
    matrix = counts()
    bounds = list(zip(matrix.indptr, matrix.indptr[1:], strict=False))
    table = {
        "indices": pa.array([matrix.indices[a:b].tolist() for a, b in bounds], pa.list_(pa.int32())),
        "data": pa.array([matrix.data[a:b].tolist() for a, b in bounds], pa.list_(pa.float32())),
        "obs_names": pa.array([f"cell{n}" for n in range(NUM_CELLS)]),
        **columns,
    }
    whole = pa.table(table).replace_schema_metadata({"genes": json.dumps(GENES) if genes is None else genes})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, whole.schema) as writer:
        writer.write_table(whole)
    return sink.getvalue()


def damage_bytes(body: bytes, random: np.random.Generator) -> bytes:
    """Flip, overwrite, cut, repeat or insert a few bytes."""
    out = bytearray(body)
    for _ in range(int(random.integers(1, 6))):
        at = int(random.integers(0, max(1, len(out))))
        size = int(random.integers(1, 64))
        kind = random.integers(0, 6)
        if kind == 0 and out:
            out[at] ^= 1 << int(random.integers(0, 8))
        elif kind == 1:
            out[at : at + size] = random.bytes(size)
        elif kind == 2:
            del out[at:]
        elif kind == 3:
            del out[at : at + size]
        elif kind == 4:
            out[at:at] = out[at : at + size]
        else:
            out[at : at + 8] = random.choice([b"\xff" * 8, b"\0" * 8, b"\x7f" + b"\xff" * 7])
    return bytes(out)


def odd_json(random: np.random.Generator) -> bytes:
    """Valid JSON with an invalid member."""
    members = good_json()
    for _ in range(int(random.integers(1, 3))):
        name = str(random.choice(list(members) or ["genes"]))
        odd = _ODD[int(random.integers(0, len(_ODD)))]
        kind = random.integers(0, 4)
        if kind == 0:
            members.pop(name, None)
        elif kind == 1 or not members.get(name):
            members[name] = odd
        elif isinstance(members[name], list):
            at = int(random.integers(0, len(members[name])))
            if kind == 2:
                members[name][at] = odd
            else:
                del members[name][at:]
    return json.dumps(members).encode("utf-8", "surrogatepass")


def odd_h5ad(good: bytes, random: np.random.Generator) -> bytes:
    """A valid HDF5 file with an invalid object."""
    buffer = io.BytesIO(good)
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visit(names.append)
        name = str(random.choice(names))
        kind = int(random.integers(0, 6))
        node = file[name]
        if kind == 0:
            del file[name]
        elif kind == 1:
            del file[name]
            file[name] = h5py.SoftLink(str(random.choice(["/", "/X", "/nowhere", "/obs/_index"])))
        elif kind == 2:
            del file[name]
            file[name] = h5py.ExternalLink("/etc/hostname", "/")
        elif kind == 3:
            del file[name]
            shape = (int(random.choice([0, 1, 7, 10**12])),)
            file.create_dataset(name, shape, str(random.choice(["i8", "f8", "u1"])), chunks=(1,) if shape[0] else None)
        elif kind == 4 and isinstance(node, h5py.Dataset) and node.dtype.kind in "if" and node.size:
            values = node[()]
            flat = values.reshape(-1)
            with np.errstate(all="ignore"):
                odd = random.choice([-1.0, 2.0**40, np.nan, np.inf])
                flat[int(random.integers(0, flat.size))] = np.array(odd).astype(flat.dtype)
            node[...] = values
        else:
            for attribute in list(node.attrs):
                node.attrs[attribute] = ["csr_matrix", "dense", "", 7][int(random.integers(0, 4))]
    return buffer.getvalue()


def odd_arrow(random: np.random.Generator) -> bytes:
    """A valid Arrow stream with an invalid column."""
    odd = [-1, 2**40, 0, 39, 40, None]
    values = [[odd[int(random.integers(0, len(odd)))] for _ in range(3)] for _ in range(NUM_CELLS)]
    kinds = [pa.list_(pa.int64()), pa.large_list(pa.int64()), pa.list_(pa.float64()), pa.list_(pa.string())]
    kind = kinds[int(random.integers(0, len(kinds)))]
    if kind.value_type == pa.string():
        values = [[str(value) for value in row] for row in values]  # type: ignore[misc]
    column = pa.array(values, kind)
    genes = [None, "[]", "{}", "7", json.dumps(GENES[:3]), json.dumps([*GENES, *GENES])][int(random.integers(0, 6))]
    return good_arrow(genes, **{str(random.choice(["indices", "data", "obs_names"])): column})


def samples(number: int, seed: int) -> list[Sample]:
    """Yield ``number`` bodies, the same ones for the same seed."""
    random = np.random.default_rng(seed)
    h5ad, arrow, text = good_h5ad(), good_arrow(), json.dumps(good_json()).encode()
    makers: list[tuple[str, str, Callable[[], bytes]]] = [
        ("bytes of h5ad", H5AD, lambda: damage_bytes(h5ad, random)),
        ("objects of h5ad", H5AD, lambda: odd_h5ad(h5ad, random)),
        ("bytes of JSON", JSON, lambda: damage_bytes(text, random)),
        ("members of JSON", JSON, lambda: odd_json(random)),
        ("bytes of Arrow", ARROW, lambda: damage_bytes(arrow, random)),
        ("columns of Arrow", ARROW, lambda: odd_arrow(random)),
        ("another kind", H5AD, lambda: damage_bytes(text, random)),
        ("another kind", ARROW, lambda: h5ad[: int(random.integers(0, 500))]),
    ]
    out = []
    for at in range(number):
        what, media_type, make = makers[at % len(makers)]
        body, headers = make(), {"content-type": media_type}
        packing = random.integers(0, 8)
        if packing == 0:
            body, headers = damage_bytes(gzip.compress(body), random), {**headers, "content-encoding": "gzip"}
        elif packing == 1:
            body, headers = zstandard.compress(body), {**headers, "content-encoding": "zstd"}
        out.append(Sample(f"{what}, number {at} of seed {seed}", body, headers))
    return out
