"""The TypeScript client that @hey-api/openapi-ts generates compiles with --strict, and works."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import numpy as np

from tests.e2e.clients.conftest import FOLDER, NUM_CELLS
from tests.e2e.conftest import Server


def test_the_client_works(
    server: Server, typescript_client: Path, sparse_cells: Path, cells: Path, expected: dict[str, np.ndarray]
) -> None:
    command = ["node", str(typescript_client), server.url, str(sparse_cells), str(cells)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    np.testing.assert_array_equal(found["embedding"], expected["embedding"])
    np.testing.assert_array_equal(found["ic50"], expected["ic50"])
    assert len(found["uploaded"]) == 150 and len(found["uploaded"][0]) < len(found["embedding"][0])
    assert found["units"] == "ln IC50 (uM)" and found["drug"] == 84691 and found["distance"] > 0
    assert len(found["labels"]) == len(found["probabilities"]) == len(found["domain"]) == NUM_CELLS
    assert found["job"] == {"names": ["cell0", "cell1", "cell2"], "values": NUM_CELLS}
    assert found["problem"]["status"] == 422 and found["problem"]["gene"]
    assert len(found["models"]) == 1


def test_the_program_needs_no_casts() -> None:
    code = "\n".join(re.sub("//.*", "", line) for line in (FOLDER / "use.ts").read_text().splitlines())
    assert not re.search(r"\b(as|any|satisfies)\b|<[A-Z]\w*>[a-z(]|!\.|@ts-", code)
