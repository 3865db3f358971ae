from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from scpalm.model.drug_response.config import DrugResponseConfig, pooling_share
from scpalm.model.drug_response.network import CellTensors, DrugResponseNetwork, GraphTensors, PublishedHead
from scpalm.model.molecules.graph import batch_graphs, parse_smiles
from tests.training.drug_response.small_heads import random_network

SMILES = ("CC(=O)Oc1ccccc1C(=O)O", "CCO", "Cn1cnc2c1c(=O)n(C)c(=O)n2C")
GRAPHS = [parse_smiles(smiles) for smiles in SMILES]
CELLS = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))


def network(**options: object) -> DrugResponseNetwork:
    return random_network(DrugResponseConfig(7, **options), 0)  # type: ignore[arg-type]


@pytest.mark.parametrize("head", ["published", "mlp", "product"])
@pytest.mark.parametrize("pooling", ["mean", "padded"])
def test_all_pairs_equal_one_pair_at_a_time(head: str, pooling: str) -> None:
    made = network(head=head, pooling=pooling)
    graphs = GraphTensors(batch_graphs(GRAPHS), pooling)  # type: ignore[arg-type]
    cell_of, drug_of = torch.tensor([0, 4, 4]), torch.tensor([2, 0, 1])
    together = made.predict(CellTensors((CELLS,)), graphs, cell_of, drug_of, block=2)
    for place, (cell, drug) in enumerate(zip(cell_of.tolist(), drug_of.tolist(), strict=True)):
        alone = GraphTensors(batch_graphs([GRAPHS[drug]]), pooling)  # type: ignore[arg-type]
        zero = torch.tensor([0])
        one = made.predict(CellTensors((CELLS[cell : cell + 1],)), alone, zero, zero)
        torch.testing.assert_close(one[0], together[place], rtol=1e-4, atol=1e-4)


def test_the_drug_encoder_equals_a_literal_graph_convolution() -> None:
    made = network(graph_widths=(9, 8), readout="last")
    graph = GRAPHS[0]
    adjacency = np.eye(graph.num_atoms)
    for low, high in graph.bonds:
        adjacency[low, high] = adjacency[high, low] = 1
    root = np.diag(adjacency.sum(1) ** -0.5)
    x: Tensor = torch.from_numpy(graph.features).float()
    for layer, norm in zip(made.drug_encoder.layers, made.drug_encoder.norms, strict=True):
        x = norm(torch.relu(layer(torch.from_numpy(root @ adjacency @ root).float() @ x)))
    expected = made.drug_encoder.pooled_norm(x.mean(0, keepdim=True)).clamp(-0.3, 0.3)
    assert (expected == -0.3).any() and (expected.abs() < 0.3).any()
    torch.testing.assert_close(made.drug_encoder(GraphTensors(batch_graphs([graph]), "mean")), expected)


def test_atom_order_does_not_matter() -> None:
    made = network()
    same = GraphTensors(batch_graphs([parse_smiles("OC(=O)c1ccccc1OC(C)=O")]), "mean")
    torch.testing.assert_close(
        made.drug_encoder(same), made.drug_encoder(GraphTensors(batch_graphs(GRAPHS[:1]), "mean")), rtol=1e-4, atol=1e-5
    )


def test_padded_pooling_is_the_mean_over_a_hundred() -> None:
    batch = batch_graphs(GRAPHS)
    assert set(pooling_share(batch, "padded").tolist()) == {np.float32(0.01)}
    sums = np.bincount(batch.molecule, pooling_share(batch, "mean"))
    np.testing.assert_allclose(sums, 1, rtol=1e-6)


def test_every_setting_reads_its_branch() -> None:
    made = network(mutation_width=4, methylation_width=3)
    graphs, zero = GraphTensors(batch_graphs(GRAPHS), "mean"), torch.tensor([0])
    parts = [CELLS[:1], torch.ones(1, 4), torch.ones(1, 3)]
    base = made.predict(CellTensors(tuple(parts)), graphs, zero, zero)
    for branch in range(3):
        changed = [part.clone() for part in parts]
        changed[branch][0, 0] += 1
        assert made.predict(CellTensors(tuple(changed)), graphs, zero, zero) != base
    with pytest.raises(ValueError, match="zip"):
        made.predict(CellTensors((CELLS[:1],)), graphs, zero, zero)


def test_published_head_has_the_parameter_count_of_the_paper() -> None:
    head = network(head="published").head
    assert isinstance(head, PublishedHead)
    sizes = {name: weight.shape for name, weight in head.convolutions.named_parameters()}
    assert [tuple(sizes[f"{i}.weight"]) for i in (0, 3, 6)] == [(30, 1, 150), (10, 30, 5), (5, 10, 5)]


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"cell_width": 0}, "cell_width"),
        ({"cell_width": 1, "dropout": 1.0}, "dropout"),
        ({"cell_width": 1, "head": "other"}, "head"),
        ({"cell_width": 1, "graph_widths": []}, "graph_widths"),
        ({"cell_width": 1, "mutation_width": -1}, "mutation_width"),
        ({"cell_width": 1, "speed": 1}, "speed"),
        ({}, "cell_width"),
    ],
)
def test_invalid_sizes_are_refused(options: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected):
        DrugResponseConfig.from_dict(options)


def test_sizes_survive_json() -> None:
    config = DrugResponseConfig(7, graph_widths=(3, 2))
    stored = config.as_dict() | {"graph_widths": [3, 2]}
    assert DrugResponseConfig.from_dict(stored) == config
