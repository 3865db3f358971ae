"""Run the notebooks of docs/tutorials and keep their results small, so that they can be committed.

    python docs/tools/notebooks.py [docs/tutorials/immune_cells.ipynb ...]

Pictures are reduced to 128 colours. Times of execution and the ids of cells are left out, so that a second run changes
only what has changed.
"""

from __future__ import annotations

import base64
import io
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import nbformat
from nbclient import NotebookClient
from PIL import Image

TUTORIALS = Path(__file__).parents[1] / "tutorials"
_COLORS = 128


def run(path: Path, folder: Path, seconds: int = 180) -> Any:
    """The notebook after a run from top to bottom in ``folder``. Raises CellExecutionError if a cell fails."""
    notebook = nbformat.read(path, as_version=4)
    # Cells with `!scpalm` find the command of the Python that runs this.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    client = NotebookClient(
        notebook, timeout=seconds, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute()
    return notebook


def shrink(notebook: Any) -> None:
    """Reduce pictures and leave out what changes with every run."""
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python", "pygments_lexer": "ipython3"},  # knows lines such as `!scpalm check`
    }
    for number, cell in enumerate(notebook.cells):
        cell.metadata = {key: value for key, value in cell.metadata.items() if key == "tags"}
        cell.id = f"cell-{number}"
        outputs = cell.get("outputs", [])
        # tqdm warns that its widget is missing, which a reader cannot see anyway.
        outputs[:] = [output for output in outputs if "IProgress not found" not in output.get("text", "")]
        for output in outputs:
            if "image/png" in output.get("data", {}):
                output.data = {"image/png": _reduced(output.data["image/png"])}
                output.metadata = {}
            elif "text/html" in output.get("data", {}):
                del output.data["text/html"]


def _reduced(png: str) -> str:
    image = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB").quantize(_COLORS)
    target = io.BytesIO()
    image.save(target, "png", optimize=True)
    return base64.b64encode(target.getvalue()).decode()


def main(paths: list[Path]) -> None:
    """Run each notebook and write it back."""
    for path in paths or sorted(TUTORIALS.glob("*.ipynb")):
        with tempfile.TemporaryDirectory() as folder:
            notebook = run(path, Path(folder))
        shrink(notebook)
        nbformat.write(notebook, path)
        print(f"{path.name}: {path.stat().st_size / 1000:.0f} kB")


if __name__ == "__main__":
    main([Path(name) for name in sys.argv[1:]])
