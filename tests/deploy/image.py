"""Run the build stage of the Dockerfile step by step, without Docker."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

from tests.deploy.files import ROOT


def build(folder: Path, extras: str) -> Path:
    """Run the build stage with the build argument EXTRAS, and return the folder of the command ``scpalm``.

    Paths of the image are below ``folder``, which has only the files that the Dockerfile copies.
    """
    text = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
    stage = text[text.index("AS build") :].split("\nFROM ")[0]
    source, target = folder / "src", folder / "opt"
    source.mkdir(parents=True)
    environment = {"PATH": f"{target / 'scpalm' / 'bin'}:/usr/bin:/bin", "EXTRAS": extras, "HOME": str(folder)}
    environment |= dict(re.findall(r"\b(PIP_\w+)=(\S+)", stage))
    for step in stage.splitlines():
        word, _, rest = step.partition(" ")
        if word == "COPY":
            *names, into = rest.split()
            for name in names:
                _copy(ROOT / name, source / into, many=len(names) > 1 or into.endswith("/"))
        elif word == "RUN":
            command = rest.replace("/opt/", f"{target}/").replace(
                "python -m venv", f"{shlex.quote(sys.executable)} -m venv"
            )
            subprocess.run(["bash", "-c", command], cwd=source, env=environment, check=True)
    return target / "scpalm" / "bin"


def _copy(path: Path, into: Path, *, many: bool) -> None:
    if path.is_dir():
        shutil.copytree(path, into, ignore=shutil.ignore_patterns("__pycache__"))
        return
    into.mkdir(parents=True, exist_ok=True) if many else into.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, into / path.name if many else into)
