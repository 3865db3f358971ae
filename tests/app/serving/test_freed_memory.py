from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

COMMAND = "from scpalm.app.serving import freed_memory as m; print(m.use_few_arenas(), m.return_freed_memory())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
@pytest.mark.parametrize(("variable", "printed"), [(None, "True True"), ("8", "False True")])
def test_heaps_are_shared_unless_the_operator_chose_a_number(variable: str | None, printed: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {} if variable is None else {"MALLOC_ARENA_MAX": variable}
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed
