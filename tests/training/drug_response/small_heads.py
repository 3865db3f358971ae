"""A bundle with a drug-response head of random weights, and the networks behind it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.numpy import save

from scpalm.model.bundle import Bundle
from scpalm.model.drug_response.cell_inputs import Standardizer
from scpalm.model.drug_response.config import DrugResponseConfig
from scpalm.model.drug_response.drugs.drug import Drug
from scpalm.model.drug_response.drugs.drug_table import DrugTable
from scpalm.model.drug_response.network import DrugResponseNetwork
from scpalm.model.drug_response.session import CARD_FILE, TABLE_FILE, WEIGHTS_FILE, DrugResponseSession
from scpalm.model.genes.matrix import CellMatrix
from scpalm.model.genes.prepare import prepare
from scpalm.model.genes.rows import Rows
from scpalm.model.molecules.graph import parse_smiles
from scpalm.training.drug_response.export import fold
from scpalm.training.export.bundle_files import add_files
from tests.training.tiny import tiny_counts

WIDTH = 16  # h_C of the tiny bundle
GENES = [f"GENE{i}" for i in range(30)]
NUM_CELLS = 70
SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "CCO", "Cn1cnc2c1c(=O)n(C)c(=O)n2C", "c1ccncc1", "NC(N)=O", "N.N.[Cl-].[Cl-].[Pt+2]")
NAMES = ("Aspirin", "Ethanol", "Caffeine", "Pyridine", "Urea", "Cisplatin")


@dataclass(frozen=True)
class Head:
    """``networks``: of the setting ``expression``. ``rows``: cells cut to the panel, with made-up ``embedding``."""

    bundle: Bundle
    session: DrugResponseSession
    networks: list[DrugResponseNetwork]
    standards: dict[str, Standardizer]
    rows: Rows
    embedding: NDArray[np.float32]


def write_head(folder: Path) -> Head:
    """Add the head to the bundle in ``folder``: settings expression (3 members) and mutation (2 members)."""
    random = np.random.default_rng(0)
    counts = tiny_counts(NUM_CELLS, seed=3)
    rows, columns = np.nonzero(counts)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows))]).astype(np.int64)
    names = [f"GENE{i}" for i in range(counts.shape[1])]
    names[2] = "NOT A GENE"  # a panel gene that these cells lack
    cells = CellMatrix(
        indptr, columns.astype(np.int32), counts[rows, columns], names, [str(i) for i in range(NUM_CELLS)]
    )
    widths = {"cell": WIDTH + len(GENES), "mutation": 6}
    standards = {
        name: Standardizer(
            random.normal(1, 0.3, width).astype(np.float32), random.uniform(0.5, 2, width).astype(np.float32)
        )
        for name, width in widths.items()
    }
    trained = [parse_smiles(smiles, allow_salt=True) for smiles in SMILES]
    tensors: dict[str, NDArray[np.floating]] = {}
    settings: dict[str, object] = {}
    networks: dict[str, list[DrugResponseNetwork]] = {}
    for setting, members in (("expression", 3), ("mutation", 2)):
        config = DrugResponseConfig(
            widths["cell"], 6 if setting == "mutation" else 0, rank=8, graph_widths=(12, 10), hidden=9, extra_hidden=9,
            branch=7,
        )  # fmt: skip
        networks[setting] = [random_network(config, seed) for seed in range(members)]
        folded = [fold(network, trained) for network in networks[setting]]
        tensors |= {f"{setting}.{name}": np.stack([member[name] for member in folded]) for name in folded[0]}
        for name in config.branches:
            tensors[f"{setting}.standard.{name}.mean"] = standards[name].mean
            tensors[f"{setting}.standard.{name}.sd"] = standards[name].sd
        settings[setting] = {
            "config": config.as_dict(),
            "inputs": ["h_C", "genes"],
            "interval": {"spread": 0.5, "quantile": 2.0, "new_drug": 4.0, "level": 0.9},
        }
    card = {
        "version": 1,
        "terms": "non-commercial",
        "genes": GENES,
        "mutation_names": list("ABC"),
        "methylation_names": list("XY"),
        "tissues": ["LUAD"],
        "domain": {"cell_distance": 30.0, "drug_similarity": 0.3},
        "settings": settings,
    }
    table = DrugTable(
        [Drug(n, s, i, known=True, in_training=True) for i, (n, s) in enumerate(zip(NAMES, SMILES, strict=True))]
    )
    table.save(folder.parent / TABLE_FILE)
    files: dict[str, Path | bytes] = {WEIGHTS_FILE: save(tensors), CARD_FILE: json.dumps(card).encode()}
    add_files(folder, files | {TABLE_FILE: folder.parent / TABLE_FILE}, {})
    bundle = Bundle.load(folder)
    session = DrugResponseSession(bundle)
    panel_rows = session.panel.only(prepare(cells, bundle.vocabulary).rows)
    embedding = random.normal(1, 1, (NUM_CELLS, WIDTH)).astype(np.float32)
    return Head(bundle, session, networks["expression"], standards, panel_rows, embedding)


def random_network(config: DrugResponseConfig, seed: int) -> DrugResponseNetwork:
    """A network in ``eval()`` whose batch norms do not have their initial statistics."""
    torch.manual_seed(seed)
    network = DrugResponseNetwork(config, 2.0, 3.0)
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm1d):
            for tensor, low, high in ((module.running_mean, -0.1, 0.1), (module.running_var, 0.5, 2.0)):
                assert tensor is not None
                torch.nn.init.uniform_(tensor, low, high)
            torch.nn.init.uniform_(module.weight, 0.5, 1.5)
            torch.nn.init.uniform_(module.bias, -0.5, 0.5)
    network.drug_encoder.low.fill_(-0.3)
    network.drug_encoder.high.fill_(0.3)
    return network.eval().requires_grad_(requires_grad=False)
