"""The spool and the files of jobs in S3 (moto's server). Skipped if moto or s3fs is not installed."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from scpalm.app.codecs.result import OutputValues
from scpalm.app.jobs.files import SpoolJobFiles
from scpalm.app.jobs.store import JobStore
from scpalm.app.storage.spool import Spool, SpoolError
from scpalm.model.tasks.embed import Embed
from tests.app.fakes import INFO
from tests.app.jobs.test_files import HEAD, REPORT
from tests.redis_server import free_port

pytest.importorskip("s3fs", reason="s3fs is not installed: pip install 'scpalm[s3]'")
pytest.importorskip("moto.server", reason="moto is not installed: pip install 'moto[server]'")
_SERVE = "import sys; from moto.server import main; main(sys.argv[1:])"


@pytest.fixture
def address(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    import s3fs

    port = free_port()
    server = subprocess.Popen([sys.executable, "-c", _SERVE, "-p", str(port)], stderr=subprocess.DEVNULL)
    for name, value in (
        ("AWS_ACCESS_KEY_ID", "key"),
        ("AWS_SECRET_ACCESS_KEY", "secret"),
        ("AWS_DEFAULT_REGION", "us-east-1"),
        ("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}"),
    ):
        monkeypatch.setenv(name, value)
    try:
        ends = time.monotonic() + 30
        while True:
            try:
                s3fs.S3FileSystem(skip_instance_cache=True).mkdir("bucket")
                break
            except Exception:
                assert time.monotonic() < ends, "moto's server did not start"
                time.sleep(0.2)
        yield "s3://bucket/scpalm"
    finally:
        server.kill()
        server.wait()


def test_payloads_and_job_files_in_s3(address: str, tmp_path: Path) -> None:
    spool = Spool(address)
    name = spool.put(b"x" * (3 << 20))
    assert Spool(address).get(name) == b"x" * (3 << 20)
    assert spool.sweep(3600) == 0 and spool.sweep(-1) == 1
    with pytest.raises(SpoolError, match="not in the spool"):
        spool.get(name)
    embedding = np.arange(15, dtype=np.float32).reshape(5, 3)
    files = SpoolJobFiles(spool, "job")
    files.write("body", b"cells")
    store = JobStore(SpoolJobFiles(Spool(address), "job"))
    store.open((Embed(INFO),), HEAD)
    store.put(0, [OutputValues(Embed(INFO).outputs[0], embedding)], [f"cell{row}" for row in range(5)], REPORT)
    np.testing.assert_array_equal(JobStore(files).read(("mini", "1", "abc"), tmp_path).outputs[0].load(), embedding)
    with files.local("body", tmp_path) as path:
        assert path.read_bytes() == b"cells"
    assert spool.sweep(-1) == 0, "the files of jobs are not payloads"
    files.remove()
    assert not files.has("body")
