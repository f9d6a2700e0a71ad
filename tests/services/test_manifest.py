"""The manifest: whole lines whatever ends the run, and the last one of a picture counts."""

import errno
import json
import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.errors import InputError, OutputError
from vdsr_cli.services.manifest import Manifest, Record


def record(name: str, status: str = "done") -> Record:
    return Record(input=f"/in/{name}", output=f"/out/{name}", status=status)


@pytest.fixture
def path(tmp_path):
    return tmp_path / "out" / "manifest.jsonl"


def test_nothing_is_made_before_the_first_line(path):
    with Manifest(path) as manifest:
        assert list(manifest) == [] and manifest.failed() == set() and not manifest.has("/in/a")
    assert not path.parent.exists()


def test_a_line_says_all_there_is(path):
    said = Record(
        input="/in/a.png", output="/out/a.png", status="failed", error="broken", exit_code=3
    )
    with Manifest(path) as manifest:
        manifest.append(said)
        assert json.loads(path.read_text()) == {
            "input": "/in/a.png", "output": "/out/a.png", "status": "failed", "seconds": None,
            "sha256": None, "error": "broken", "exit_code": 3, "model": None,
        }  # fmt: skip
        assert list(manifest) == [said]


def test_the_last_line_counts(path):
    with Manifest(path) as manifest:
        for name, status in [("a", "failed"), ("b", "failed"), ("c", "done"), ("a", "done")]:
            manifest.append(record(name, status))
        assert manifest.failed() == {"/in/b"}


def test_what_has_a_line_is_known(path):
    odd = os.fsdecode(b"caf\xe9\n.png")
    with Manifest(path) as manifest:
        manifest.append(record("a"))
    with Manifest(path) as manifest:
        assert manifest.has("/in/a") and not manifest.has(f"/in/{odd}")
        manifest.append(record(odd))
        assert manifest.has(f"/in/{odd}") and [r.input for r in manifest][1] == f"/in/{odd}"


@given(kept=st.integers(0, 400))
def test_a_torn_line_is_cut_off(tmp_path_factory, kept):
    path = tmp_path_factory.mktemp("torn") / "manifest.jsonl"
    with Manifest(path) as manifest:
        for name in "abc":
            manifest.append(record(name))
    whole = path.read_bytes()
    path.write_bytes(whole[:kept])
    lines = whole[:kept].count(b"\n")
    with Manifest(path) as manifest:
        assert len(list(manifest)) == lines, "a torn line is not read"
        manifest.append(record("new"))
    assert [json.loads(line)["input"] for line in path.read_text().splitlines()] == [
        f"/in/{name}" for name in [*"abc"[:lines], "new"]
    ]


def test_a_full_disk_leaves_whole_lines(path, monkeypatch):
    write = os.write

    def full(file, content):
        if content.startswith(b"{"):
            return write(file, content[:7])
        raise OSError(errno.ENOSPC, "No space left on device")

    with Manifest(path) as manifest:
        manifest.append(record("a"))
        before = path.read_bytes()
        monkeypatch.setattr(os, "write", full)
        with pytest.raises(OutputError, match="no space is left"):
            manifest.append(record("b"))
        assert path.read_bytes() == before


@pytest.mark.parametrize(
    "line",
    [
        "hello",
        '{"input": 1}',
        '{"input": 1, "output": "a", "status": "failed"}',
        "[]",
        '{"surprise": true}',
        "[" * 100_000,
    ],
)
def test_another_file_is_refused(path, line):
    path.parent.mkdir()
    path.write_text(line + "\n")
    with pytest.raises(InputError, match="line 1"):
        Manifest(path).failed()


def test_a_line_without_an_end_is_not_read_to_it(path):
    path.parent.mkdir()
    path.write_bytes(bytes(2**21))
    with pytest.raises(InputError, match="line 1"):
        Manifest(path).failed()
