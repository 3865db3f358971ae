from __future__ import annotations

from pathlib import Path

import pytest

from scpalm.app.errors import BadRequestError
from scpalm.app.http.form import Form
from scpalm.model.errors import ParameterError

TYPE = "multipart/form-data; boundary=b"


def body(*parts: tuple[str, bytes]) -> bytes:
    pieces = [
        b"--b\r\nContent-Disposition: form-data; " + disposition.encode() + b"\r\n\r\n" + content + b"\r\n"
        for disposition, content in parts
    ]
    return b"".join(pieces) + b"--b--\r\n"


FILE = 'name="file"; filename="../../etc/cells.h5ad"'


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_the_file_is_the_same_for_any_chunking(tmp_path: Path, step: int) -> None:
    content = bytes(range(256)) * 3 + b"\r\n--not the boundary"
    sent = body((FILE, content), ('name="drugs"', "Imatinib é".encode()))
    form = Form(TYPE, tmp_path)
    for start in range(0, len(sent), step):
        form.write(sent[start : start + step])
    paths, fields = form.finish()
    path = paths["file"]
    assert path.read_bytes() == content
    assert path.parent == tmp_path
    assert fields == {"drugs": "Imatinib é"}


def test_a_file_without_a_file_name_is_accepted(tmp_path: Path) -> None:
    form = Form(TYPE, tmp_path)
    form.write(body(('name="file"', b"abc")))
    assert form.finish()[0]["file"].read_bytes() == b"abc"


@pytest.mark.parametrize(
    ("content_type", "sent", "words"),
    [
        ("multipart/form-data", b"", "boundary"),
        (TYPE, b"", "ends before"),
        (TYPE, body((FILE, b"abc"))[:-10], "ends before"),
        (TYPE, b"not a form at all", "cannot be parsed"),
        (TYPE, body(('name="upload"; filename="x"', b"abc")), "'upload'"),
        (TYPE, body((FILE, b"abc"), (FILE, b"abc")), "more than one"),
        (TYPE, body(*((f'name="f{n}"', b"") for n in range(70))), "64 parts"),
        (TYPE, body(('name="big"', b"x" * (2 << 20))), "'big'"),
        (TYPE, body(*((f'name="f{n}"', b"x" * 100_000) for n in range(11))), "'f10' are larger than 1048576 bytes"),
    ],
)
def test_a_broken_form_is_refused_with_the_reason(tmp_path: Path, content_type: str, sent: bytes, words: str) -> None:
    with pytest.raises(BadRequestError, match=words):
        form = Form(content_type, tmp_path)
        form.write(sent)
        form.finish()


def test_a_field_that_no_task_reads_is_refused_before_its_content(tmp_path: Path) -> None:
    def check_name(name: str) -> None:
        if name != "drugs":
            raise ParameterError(f"There is no form field '{name}'.", field=name)

    form = Form(TYPE, tmp_path, check_name)
    form.write(b'--b\r\nContent-Disposition: form-data; name="drugs"\r\n\r\nurea\r\n')
    with pytest.raises(ParameterError, match="'drags'"):
        form.write(b'--b\r\nContent-Disposition: form-data; name="drags"\r\n\r\n')


def test_a_second_file_is_kept_only_in_a_field_that_is_asked_for(tmp_path: Path) -> None:
    sent = body((FILE, b"abc"), ('name="reference"; filename="atlas.h5ad"', b"def"))
    form = Form(TYPE, tmp_path, files=("reference",))
    form.write(sent)
    paths, _ = form.finish()
    assert {name: path.read_bytes() for name, path in paths.items()} == {"file": b"abc", "reference": b"def"}
    with pytest.raises(BadRequestError, match="'reference'"):
        Form(TYPE, tmp_path / "other").write(sent)
