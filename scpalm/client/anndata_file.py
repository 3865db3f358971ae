"""The file that a client sends, and the results in the file it gets back."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import anndata
import numpy as np

from scpalm.model.output.note import keep_columns, stored_note

if TYPE_CHECKING:
    from anndata import AnnData

NOTE = "scpalm"
# Members of obsm that a task reads.
_READ = ("mutation", "methylation")


def write_cells(adata: AnnData, path: Path, layer: str | None) -> None:
    """Write what the service reads: matrices, names and columns; no neighbour graphs, embeddings or images.

    ``layer``: only this matrix is sent, in addition to X.
    """
    layers = {name: adata.layers[name] for name in adata.layers if layer in (None, name)}
    kept = {name: adata.obsm[name] for name in _READ if name in adata.obsm}
    uns = {"log1p": dict(adata.uns["log1p"])} if isinstance(adata.uns.get("log1p"), dict) else {}
    slim = anndata.AnnData(adata.X, obs=adata.obs.copy(), var=adata.var.copy(), layers=layers, obsm=kept, uns=uns)
    if adata.raw is not None and layer in (None, "raw"):
        slim.raw = adata.raw.to_adata()
    slim.write_h5ad(path)


def read_results(path: Path, adata: AnnData, key_added: str | None, *, copy: bool) -> AnnData | None:
    """Copy what the service added into the AnnData, under ``key_added`` if it is given."""
    found = anndata.read_h5ad(path)
    note = stored_note(found.uns[NOTE])
    if by := note.get("drug_response", {}).get("by"):
        target = adata.copy() if copy else adata
        target.uns[key_added or f"scpalm_ic50_by_{by}"] = _groups(found, note)
        return target if copy else None
    renamed = _renamed(note, key_added)
    target = adata.copy() if copy else adata
    for key in note["keys"].values():
        for place in ("obsm", "layers", "obs"):
            if key in getattr(found, place):
                values = getattr(found, place)[key]
                getattr(target, place)[renamed[key]] = values.to_numpy() if place == "obs" else values
                if place == "obs" and hasattr(values, "cat"):
                    target.obs[renamed[key]] = values.array
    note["keys"] = {name: renamed[key] for name, key in note["keys"].items()}
    note["key"] = renamed[note["key"]]
    if "columns" in note:
        note["columns"] = {renamed[key]: names for key, names in note["columns"].items()}
    keep_columns(note, target.uns.get(NOTE, {}))
    target.uns[NOTE] = note
    return target if copy else None


def _groups(found: AnnData, note: dict[str, Any]) -> dict[str, object]:
    """Results of groups of cells, as `AnnDataWriter.write_groups_into` stores them."""
    table: dict[str, object] = {"groups": found.obs_names.to_numpy(dtype=object)}
    for name, key in note["keys"].items():
        table[name] = found.obsm[key] if key in found.obsm else found.obs[key].to_numpy(dtype=object)
    table["drugs"] = np.array(note["columns"][note["key"]], dtype=object)
    table["note"] = note
    return table


def _renamed(note: dict[str, object], key_added: str | None) -> dict[str, str]:
    """New name of each key. The main output gets ``key_added``; columns of obs get it as their prefix."""
    keys, main = note["keys"], note["key"]
    assert isinstance(keys, dict)
    if key_added is None:
        return {key: key for key in keys.values()}
    out = {}
    for name, key in keys.items():
        if str(key).startswith("scpalm_"):
            out[key] = f"{key_added}_{str(key).removeprefix('scpalm_')}"
        else:
            out[key] = key_added if key == main else f"{key_added}_{name}"
    return out
