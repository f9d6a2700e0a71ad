"""The manifest: whole lines whatever ends the run, and the last one of a picture counts."""

import errno
import json
import os
from dataclasses import asdict
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.batch.manifest import Manifest, Record
from vdsr_cli.errors import InputError, OutputError


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


def test_whether_the_last_line_says_failed(path):
    with Manifest(path) as manifest:
        for name, status in [("a", "failed"), ("b", "done"), ("c", "failed")]:
            manifest.append(record(name, status))
    with Manifest(path) as manifest:
        assert [manifest.has_failed(f"/in/{name}") for name in "abcd"] == [True, False, True, False]
        manifest.append(record("a"))
        manifest.append(record("b", "failed"))
        assert [manifest.has_failed(f"/in/{name}") for name in "abc"] == [False, True, True]


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


LINE = json.dumps(asdict(record("a"))).encode() + b"\n"
OTHERS = {
    "a picture": b"\x89PNG\r\n\x1a\n" + bytes(range(256)),
    "a text": b"dear diary,\ntoday",
    "a text of one line": b"dear diary",
    "JSON lines of others": b'{"input": "a"}\n{"input": "b"}\n',
    "JSON of others that only begins like ours": b'{"input": "a"}',
    "ours behind something else": b"dear diary\n" + LINE,
    "something else behind ours": LINE + b"dear diary\n",
    "a torn something else behind ours": LINE + b"dear",
    "a line without an end": bytes(3 * 2**20),
}


@pytest.mark.parametrize("content", OTHERS.values(), ids=OTHERS)
def test_another_file_is_not_written_to(path, content):
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(OutputError, match="is no manifest, and is left as it is"), Manifest(path):
        pass
    with pytest.raises(OutputError, match="is no manifest"):
        Manifest(path).append(record("b"))
    assert path.read_bytes() == content


@pytest.mark.skipif(os.name != "posix", reason="devices and pipes of POSIX")
def test_a_pipe_or_a_device_only_takes_lines(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    for path in (tmp_path / "pipe", Path(os.devnull)):
        with Manifest(path) as manifest:
            manifest.append(record("a"))
            assert not manifest.has("/in/b") and manifest.failed() == set()
    assert json.loads(os.read(reader, 2**16))["input"] == "/in/a"
    os.close(reader)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_a_full_device_is_one_line():
    with (
        pytest.raises(OutputError, match="no space is left"),
        Manifest(Path("/dev/full")) as manifest,
    ):
        manifest.append(record("a"))


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
