"""Members of a finished run -> a bundle: ``drug_response.safetensors``, ``drug_response.json``, ``drugs.parquet``."""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import nn

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.domain import Domain, nearest
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.drugs.synonyms import SYNONYMS
from scpalm.model.drug_response.network import CellBranch, DrugResponseNetwork, GraphTensors, ProductHead
from scpalm.model.drug_response.predictions import Setting
from scpalm.model.drug_response.session import (
    CARD_FILE,
    CARD_VERSION,
    TABLE_FILE,
    UNITS,
    WEIGHTS_FILE,
    DrugResponseSession,
)
from scpalm.model.molecules.graph import MoleculeGraph, batch_graphs
from scpalm.training.drug_response.data.splits import Split, make_split
from scpalm.training.drug_response.data.tables import Tables
from scpalm.training.drug_response.experiment import DrugRun, Outcome, Variant, encoder_files
from scpalm.training.drug_response.features import PARTS, LineEmbeddings, line_features
from scpalm.training.drug_response.interval import LEVEL, calibrate
from scpalm.training.drug_response.ridge import solve
from scpalm.training.export.bundle_files import add_files
from scpalm.training.metrics.rows import Row
from scpalm.training.runs.run import RunError

TERMS = (
    "Trained on GDSC drug responses (Genomics of Drug Sensitivity in Cancer, Wellcome Sanger Institute and "
    "Massachusetts General Hospital), which are for non-commercial research; predictions of this head are under the "
    "same terms. Not for clinical use."
)
# A drug is out of domain when its similarity to the nearest training drug is below this quantile of the training drugs.
DRUG_QUANTILE = 0.05
# Matrices are in half precision, as in the bundle's other files. The drug's are not: the solved layer after them has
# terms that cancel.
FULL_PRECISION = ("graph.", "head.drug.", "head.new.")
# Ridge of the layer for drugs outside the training rows: the best on the validation drugs of split ``drug``.
NEW_DRUG_RIDGE = 1.0
MAX_DIFFERENCE = 2e-2  # ln uM, between the networks and the exported arrays, half precision included

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class HeadSource:
    """Where an exported head comes from.

    Attributes:
        run: of split ``published``. variants: one per setting, expression included; their members are exported.
        unknown_drugs: a run of split ``drug``; gives the interval of drugs outside the training rows.
    """

    run: DrugRun
    variants: Sequence[Variant]
    unknown_drugs: DrugRun


def export_head(
    source: HeadSource, tables: Tables, lines: LineEmbeddings, bundle: Bundle, metrics: Sequence[Row]
) -> list[str]:
    """Write the members of a run into ``bundle``; returns a report. ``metrics`` are rows for the bundle's card.

    Raises RunError when a run was made with another encoder, a variant has no member or is not served, or the exported
    arrays disagree with the networks.
    """
    run, variants = source.run, source.variants
    record = run.record()
    if record["split"] != "published":
        raise RunError(f"{run.path} has split '{record['split']}'; the head that ships is trained on 'published'.")
    if record["bundle"]["files"] != encoder_files(bundle):
        raise RunError(f"{run.path} was trained on the encoder of another bundle. Train it on {bundle.path} again.")
    new_drug = interval_of_unknown(source.unknown_drugs, tables, Variant(variants[0].inputs, "expression"), bundle)
    tensors: dict[str, NDArray[np.floating]] = {}
    settings: dict[str, Any] = {}
    distance = 0.0
    before: dict[str, NDArray[np.floating]] = {}
    split = make_split(tables, "published", 0)
    for variant in sorted(variants, key=lambda one: get_args(Setting).index(one.setting)):
        outcomes = run.members(variant)
        if not outcomes:
            raise RunError(f"{run.path} has no finished member of '{variant.name}'.")
        if variant.inputs not in PARTS or record["training"]["head"] != "product":
            raise RunError(f"'{variant.name}' with head '{record['training']['head']}' is not served.")
        if record["training"]["fine_tune"]:
            raise RunError(f"{run.path} tuned the encoder, which would no longer be that of /embed. Train without.")
        own, entry = _setting(tables, outcomes, new_drug)
        # Arrays that a setting shares with the one before it are stored once.
        tensors |= {
            f"{variant.setting}.{name}": value
            for name, value in own.items()
            if not (name in before and np.array_equal(value, before[name]))
        }
        before = own
        settings[variant.setting] = entry
        if variant.setting == "expression":
            train_lines = np.unique(tables.line_of[split.train])
            features = line_features(tables, lines, variant.inputs, "expression", train_lines).tensors.branches[0]
            values = features[torch.from_numpy(train_lines)].numpy()
            distance = float(Domain.cell_distances(values, np.full(len(values), values.shape[1])).max())
    table = DrugTable(_drugs(tables, split))
    card = {
        "version": CARD_VERSION,
        "units": UNITS,
        "terms": TERMS,
        "genes": tables.genes,
        "mutation_names": tables.mutation_names,
        "methylation_names": tables.methylation_names,
        "tissues": sorted({str(name) for name in tables.types[np.unique(tables.line_of[split.train])]}),
        "domain": {"cell_distance": distance, "drug_similarity": least_similarity(table)},
        "settings": settings,
    }
    entries = {"drug_response": {"terms": TERMS, "units": UNITS, "training": record, "evaluation": list(metrics)}}
    with tempfile.TemporaryDirectory() as folder:
        table.save(Path(folder) / TABLE_FILE)
        files: dict[str, Path | bytes] = {
            WEIGHTS_FILE: save({name: np.ascontiguousarray(value) for name, value in tensors.items()}),
            CARD_FILE: json.dumps(card).encode(),
            TABLE_FILE: Path(folder) / TABLE_FILE,
        }
        add_files(bundle.path, files, entries)
    return _parity(run, tables, lines, Bundle.load(bundle.path), variants)


def interval_of_unknown(run: DrugRun, tables: Tables, variant: Variant, bundle: Bundle) -> float:
    """Half width (ln uM) of the interval for drugs that a member has not seen, at the level of the other intervals.

    Taken from the calibration rows (drugs held out of training and validation) of all seeds of a run of split ``drug``.
    Raises RunError for another kind of run, or one without members.
    """
    record = run.record()
    if record["split"] != "drug" or record["bundle"]["files"] != encoder_files(bundle):
        raise RunError(f"{run.path} must be a run of split 'drug' with the encoder of {bundle.path}.")
    outcomes = run.members(variant)
    if not outcomes:
        raise RunError(f"{run.path} has no finished member of '{variant.name}'.")
    errors = [
        np.abs(outcome.predicted["calibration"] - tables.ln_ic50[make_split(tables, "drug", outcome.seed).calibration])
        for outcome in outcomes
    ]
    return float(np.quantile(np.concatenate(errors), LEVEL))


def fold(network: DrugResponseNetwork, trained: Sequence[MoleculeGraph]) -> dict[str, Floats]:
    """The arrays of one member (see ``FoldedMembers``), in ln uM; ``trained`` are the training drugs.

    Raises RunError for a head that is not served.
    """
    head = network.head
    if not isinstance(head, ProductHead):
        raise RunError(f"Head '{network.config.head}' is not served; train with head=product.")
    out: dict[str, NDArray[np.float64]] = {}
    encoder = network.drug_encoder
    for number, (layer, norm) in enumerate(zip(encoder.layers, encoder.norms, strict=True)):
        assert isinstance(layer, nn.Linear) and isinstance(norm, nn.BatchNorm1d)
        out |= _dense(f"graph.{number}", _array(layer.weight).T, _array(layer.bias))
        out[f"graph.{number}.scale"], out[f"graph.{number}.shift"] = _norm(norm)
    out["pooled.scale"], out["pooled.shift"] = _norm(encoder.pooled_norm)
    out["pooled.low"], out["pooled.high"] = _array(encoder.low), _array(encoder.high)
    for name, branch in zip(network.config.branches, network.cell_branches, strict=True):
        assert isinstance(branch, CellBranch)
        scale, shift = _norm(branch.norm)
        last = _array(branch.last.weight).T
        out |= _dense(f"{name}.first", _array(branch.first.weight).T, _array(branch.first.bias))
        out |= _dense(f"{name}.last", scale[:, None] * last, shift @ last + _array(branch.last.bias))
    # Units: those of the product, then the cell's offset times 1, then 1 times the drug's offset. The sd of ln IC50 is
    # folded into the drug's side and its mean into the drug's offset.
    sd, mean, rank = float(network.scale), float(network.mean), head.rank
    cell, cell_bias = _array(head.cell.weight).T, _array(head.cell.bias)
    drug, drug_bias = _array(head.drug.weight).T, _array(head.drug.bias)
    zeros = np.zeros((len(cell), 1))
    shrink = np.append(np.full(rank, 1 / math.sqrt(rank)), 1.0)
    out |= _dense("head.cell", np.hstack([cell * shrink, zeros]), np.append(cell_bias * shrink, 1.0))
    with torch.no_grad():
        encoded = encoder(GraphTensors(batch_graphs(trained), network.config.pooling))
        smooth = solve(encoded, head.drug(encoded), NEW_DRUG_RIDGE)
    layers = {"head.drug": (drug, drug_bias), "head.new": (_array(smooth[0]), _array(smooth[1]))}
    for name, (weight, bias) in layers.items():
        wide = np.hstack([weight[:, :-1], np.zeros((len(weight), 1)), weight[:, -1:]]) * sd
        out |= _dense(name, wide, np.concatenate([bias[:-1] * sd, [sd], [bias[-1] * sd + mean]]))
    return {name: np.ascontiguousarray(value, dtype=np.float32) for name, value in out.items()}


def _setting(
    tables: Tables, outcomes: Sequence[Outcome], new_drug: float
) -> tuple[dict[str, NDArray[np.floating]], dict[str, Any]]:
    standards = outcomes[0].standards()
    for outcome in outcomes[1:]:
        for name, standard in outcome.standards().items():
            if not np.array_equal(standard.mean, standards[name].mean):
                raise RunError("The members have different standardisations: their training lines differ.")
    split = make_split(tables, "published", outcomes[0].seed)
    trained = [tables.graphs[drug] for drug in tables.encoder_drugs(split.train)]
    folded = [fold(outcome.network(), trained) for outcome in outcomes]
    tensors: dict[str, NDArray[np.floating]] = {}
    for name in folded[0]:
        stacked = np.stack([member[name] for member in folded])
        tensors[name] = (
            stacked.astype(np.float16) if stacked.ndim == 3 and not name.startswith(FULL_PRECISION) else stacked
        )
    for name, standard in standards.items():
        tensors |= {f"standard.{name}.mean": standard.mean, f"standard.{name}.sd": standard.sd}
    measured = tables.ln_ic50[split.calibration]
    interval = calibrate(np.stack([outcome.predicted["calibration"] for outcome in outcomes]), measured)
    entry = {
        "config": outcomes[0].record["network"],
        "inputs": list(PARTS[outcomes[0].variant.inputs]),
        "interval": interval.as_dict() | {"new_drug": new_drug},
        "seeds": [outcome.seed for outcome in outcomes],
    }
    return tensors, entry


def _drugs(tables: Tables, split: Split) -> list[Drug]:
    trained = set(tables.encoder_drugs(split.train).tolist())
    return [
        replace(drug, in_training=number in trained, synonyms=SYNONYMS.get(drug.name, ()))
        for number, drug in enumerate(tables.drugs)
    ]


def least_similarity(table: DrugTable) -> float:
    """Similarity to the nearest other training drug that all but 5 % of the training drugs have."""
    nearest_others = [nearest(drug, table, leave_out=drug) for drug in table.drugs if drug.in_training]
    return float(np.quantile(nearest_others, DRUG_QUANTILE))


def _parity(
    run: DrugRun, tables: Tables, lines: LineEmbeddings, bundle: Bundle, variants: Sequence[Variant]
) -> list[str]:
    session = DrugResponseSession(bundle)
    split = make_split(tables, "published", 0)
    report = []
    for variant in variants:
        extra = {
            "mutation": tables.mutation if variant.setting != "expression" else None,
            "methylation": tables.methylation if variant.setting == "methylation" else None,
        }
        answer = session.predict(lines.h_c, lines.rows, session.drugs.drugs, **extra)  # type: ignore[arg-type]
        wanted = np.mean([outcome.predicted["test"] for outcome in run.members(variant)], axis=0)
        drug = tables.drug_of[split.test]
        found = answer.ln_ic50[tables.line_of[split.test], drug]
        # A drug without a structure has a learned vector in training, but counts as a new drug in the bundle.
        trained = np.array([one.in_training for one in session.drugs.drugs])[drug]
        difference = float(np.abs(found - wanted)[trained].max())
        if not difference <= MAX_DIFFERENCE:
            raise RunError(f"'{variant.name}': the exported head is off by {difference:.3g} ln uM.")
        report.append(
            f"{variant.name}: {len(run.members(variant))} members, largest difference to the networks "
            f"{difference:.1e} ln uM on {trained.sum():,} test pairs"
        )
    return report


def _dense(name: str, weight: NDArray[np.float64], bias: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    return {f"{name}.weight": weight, f"{name}.bias": bias}


def _norm(norm: nn.BatchNorm1d) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    assert norm.running_mean is not None and norm.running_var is not None
    scale = _array(norm.weight) / np.sqrt(_array(norm.running_var) + norm.eps)
    return scale, _array(norm.bias) - _array(norm.running_mean) * scale


def _array(tensor: torch.Tensor) -> NDArray[np.float64]:
    return tensor.detach().numpy().astype(np.float64)
