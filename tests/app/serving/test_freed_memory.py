from __future__ import annotations

import gc
import os
import platform
import subprocess
import sys
import weakref
from pathlib import Path

import pytest

from tests.app.fakes import Client, write_bundle
from tests.app.serving.test_models import BODY, Served, until

COMMAND = "from scpalm.app.serving import freed_memory as m; print(m.use_few_arenas(), m.return_freed_memory())"


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library has other heaps")
@pytest.mark.parametrize(("variable", "printed"), [(None, "True True"), ("8", "False True")])
def test_heaps_are_shared_unless_the_operator_chose_a_number(variable: str | None, printed: str) -> None:
    environment = {name: value for name, value in os.environ.items() if name != "MALLOC_ARENA_MAX"}
    environment |= {} if variable is None else {"MALLOC_ARENA_MAX": variable}
    command = [sys.executable, "-c", COMMAND]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == printed


def test_a_replaced_model_is_freed_without_the_garbage_collector(tmp_path: Path) -> None:
    """The collector rarely looks at old objects, and never at those of the start of the service."""
    served = Served(tmp_path)
    write_bundle(served.more / "two", "two", "1")
    with Client(served.app()) as client:
        client.wait_until_loaded()
        client.post("/embed?model=two", json=BODY)
        replaced = (served.sessions.pop("two 1"), client.service.models.get("two").bundle)
        gone: list[weakref.ref[object]] = [weakref.ref(one) for one in replaced]
        del replaced
        gc.disable()
        try:
            write_bundle(served.more / "two", "two", "2")
            until(lambda: not any(reference() for reference in gone))
        finally:
            gc.enable()
