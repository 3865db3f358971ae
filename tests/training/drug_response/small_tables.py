"""A small drug-response data set in the format of the real one, with effects of line, drug and their interaction."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

SMILES = {
    "ethanol": "CCO", "aspirin": "CC(=O)Oc1ccccc1C(=O)O", "caffeine": "Cn1cnc2c1c(=O)n(C)c(=O)n2C",
    "benzene": "c1ccccc1",
    "glycine": "NCC(=O)O", "chloroform": "ClC(Cl)Cl", "pyridine": "c1ccncc1", "urea": "NC(N)=O", "toluene": "Cc1ccccc1",
    "cisplatin": "N.N.[Cl-].[Cl-].[Pt+2]", "acetone": "CC(C)=O", "phenol": "Oc1ccccc1", "indole": "c1ccc2[nH]ccc2c1",
    "DMSO": "CS(C)=O", "anisole": "COc1ccccc1", "morpholine": "C1COCCN1", "thiophene": "c1ccsc1", "furan": "c1ccoc1",
    "piperidine": "C1CCNCC1", "aniline": "Nc1ccccc1",
}  # fmt: skip
NUM_LINES = 40
TYPES = ("LUAD", "BRCA", "LGG", "SKCM")


def write_tables(folder: Path, genes: list[str], seed: int = 0) -> Path:
    """Every line with every drug; one pair in 40 twice, under a second GDSC id."""
    folder.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(seed)
    lines = [f"ACH-{i:06d}" for i in range(NUM_LINES)]
    ids = np.arange(1, len(SMILES) + 1) * 100
    expression = random.gamma(2.0, 1.5, (NUM_LINES, len(genes))).astype(np.float32)
    expression[:, 0] = 0.0
    score = (expression[:, 1:9] - expression[:, 1:9].mean(0)) / expression[:, 1:9].std(0)
    answers = random.normal(0, 2, len(ids)) + 0.8 * score @ random.normal(0, 1, (8, len(ids))) / 3
    answers += random.normal(0, 0.2, answers.shape)
    line, drug = (grid.ravel() for grid in np.meshgrid(range(NUM_LINES), range(len(ids)), indexing="ij"))
    twice = np.arange(0, len(line), 40)
    line, drug = np.append(line, line[twice]), np.append(drug, drug[twice])
    response = pd.DataFrame(
        {
            "depmap_id": np.array(lines)[line],
            "pubchem_id": ids[drug],
            "ln_ic50": answers[line, drug].astype(np.float32),
            "tcga_type": np.array(TYPES)[line % len(TYPES)],
            "gdsc_drug_id": np.append(drug[: -len(twice)], drug[-len(twice) :] + 1000),
        }
    )
    draw = random.random(len(response))
    response["split_scf"] = np.where(draw < 0.8, "train", np.where(draw < 0.95, "test", "unused"))
    tested = response["split_scf"] == "test"
    response["pub_pred_base"] = np.where(tested, response["ln_ic50"] + random.normal(0, 1.5, len(response)), np.nan)
    response["pub_pred_scfoundation"] = np.where(
        tested, response["ln_ic50"] + random.normal(0, 1, len(response)), np.nan
    )
    response.to_parquet(folder / "response.parquet")

    def profiles(name: str, values: np.ndarray, columns: list[str]) -> None:
        table = pd.DataFrame(values, columns=columns)
        table.insert(0, "depmap_id", lines)
        # Not in the order of expression: rows are matched by id.
        order = np.arange(NUM_LINES) if name == "expression" else random.permutation(NUM_LINES)
        table.iloc[order].to_parquet(folder / f"{name}.parquet", index=False)

    profiles("expression", expression, genes)
    profiles("mutation", random.integers(-1, 2, (NUM_LINES, 5)).astype(np.int8), list("ABCDE"))
    profiles("methylation", random.random((NUM_LINES, 6)).astype(np.float32), [f"site{i}" for i in range(6)])
    profiles("scfoundation_embedding", expression[:, :7] * 2 + 1, [f"e{i}" for i in range(7)])
    drugs = {"pubchem_id": ids, "name": list(SMILES), "smiles": list(SMILES.values()), "targets": "T"}
    pd.DataFrame(drugs | {"target_pathway": "P"}).to_parquet(folder / "drugs.parquet")
    return folder
