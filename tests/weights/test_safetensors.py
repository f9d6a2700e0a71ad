"""Weights files: what is read, what is refused, what is written."""

import json
import random
import stat
import sys
from pathlib import Path

import pytest
from weight_files import left_in, safetensors

from vdsr_cli import weights
from vdsr_cli.errors import OutputError, WeightsError
from vdsr_cli.weights import Checkpoint


def test_round_trip_keeps_everything(tmp_path):
    import torch

    shared = torch.randn(4, 4)
    state = {
        "float": shared,
        "tied": shared,
        "view": shared[1:3],
        "transposed": shared.t(),
        "half": torch.randn(3).bfloat16(),
        "count": torch.tensor(3),
        "empty": torch.zeros(0, 2),
        "parameter": torch.nn.Parameter(torch.ones(2)),
    }
    before = Checkpoint(
        architecture="vdvae-sr", config={"width": 8}, state=state, metadata={"steps": 3}
    )
    path = tmp_path / "a.safetensors"
    weights.write_safetensors(path, before)
    after = weights.read_safetensors(path)
    assert (after.architecture, after.config) == ("vdvae-sr", {"width": 8})
    assert after.metadata == {"steps": 3}
    assert set(after.state) == set(state)
    for name, tensor in state.items():
        assert after.state[name].dtype == tensor.dtype
        assert torch.equal(after.state[name], tensor)
    assert weights.read_header(path).parameters == sum(t.numel() for t in state.values())
    twice = tmp_path / "b.safetensors"
    weights.write_safetensors(twice, after)
    assert twice.read_bytes() == path.read_bytes()


def test_a_missing_folder_is_made(tmp_path):
    path = tmp_path / "no" / "such" / "a.safetensors"
    weights.write_safetensors(path, Checkpoint(architecture="a", config={}, state={}))
    assert weights.read_header(path).architecture == "a"


def test_a_failed_write_leaves_nothing(tmp_path):
    import torch

    checkpoint = Checkpoint(architecture="a", config={}, state={"a": torch.zeros(2)})
    (tmp_path / "file").touch()
    with pytest.raises(OutputError, match="File exists"):
        weights.write_safetensors(tmp_path / "file" / "a.safetensors", checkpoint)
    (tmp_path / "file").unlink()
    (tmp_path / "folder.safetensors").mkdir()
    with pytest.raises(OutputError, match="directory"):
        weights.write_safetensors(tmp_path / "folder.safetensors", checkpoint)
    assert left_in(tmp_path) == []


@pytest.mark.parametrize("name", ["", "a/b", "a b", "\x1b[31m", "x" * 65, None])
def test_an_architecture_is_a_plain_name(name):
    with pytest.raises(WeightsError, match="architecture"):
        Checkpoint(architecture=name, config={}, state={})


@staticmethod
def write(path: Path, table: object, data: bytes = b"", length: int | None = None) -> Path:
    header = table if isinstance(table, bytes) else json.dumps(table).encode()
    size = len(header) if length is None else length
    path.write_bytes(size.to_bytes(8, "little") + header + data)
    return path


@pytest.mark.parametrize(
    "table",
    [
        b"",
        b"[]",
        b"{",
        b'{"a": NaN}',
        b"\xff\xfe",
        b"[" * 100_000,
        b'{"a": ' * 100_000,
        b'{"__metadata__": {"vdsr": "{}"}, "__metadata__": {}}',
        {},
        {"__metadata__": {}},
        {"__metadata__": {"vdsr": 3}},
        {"__metadata__": {"vdsr": "3"}},
        {"__metadata__": {"vdsr": "{}"}},
        {"__metadata__": {"vdsr": '{"architecture": "a", "config": []}'}},
        {"__metadata__": {"vdsr": '{"architecture": "A B", "config": {}}'}},
        {"__metadata__": {"vdsr": '{"architecture": "a", "config": {}, "card": 3}'}},
        {"a": 3},
        {"a": {"dtype": "F32", "shape": [1]}},
        {"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [True], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1] * 9, "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [2], "data_offsets": [0, 4]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}},
        {"a": {"dtype": "F32", "shape": [1], "data_offsets": [1, 5]}},
        {"a": {"dtype": "F32", "shape": [1 << 30] * 3, "data_offsets": [0, 4]}},
        {"\x1b]0;x": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}},
        {
            "a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
            "b": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        },
    ],
    ids=lambda table: str(table)[:40],
)
def test_a_lying_header_is_refused(tmp_path, table):
    path = write(tmp_path / "a.safetensors", table, b"\0" * 4)
    with pytest.raises(WeightsError) as caught:
        weights.read_header(path)
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("length", [0, 1, 1 << 24, 1 << 40, (1 << 64) - 1])
def test_an_impossible_header_length_is_refused(tmp_path, length):
    path = write(tmp_path / "a.safetensors", b"{}", b"\0" * 100, length)
    with pytest.raises(WeightsError, match="not a sound safetensors file"):
        weights.read_header(path)


def test_no_change_and_no_cut_gets_past(tmp_path):
    path, whole = tmp_path / "a.safetensors", safetensors(numbers=16)
    chance = random.Random(1)
    cases = [whole[:size] for size in range(len(whole))]
    for _ in range(300):
        changed = bytearray(whole)
        changed[chance.randrange(8 + 150)] = chance.randrange(256)
        cases.append(bytes(changed))
    for data in cases:
        path.write_bytes(data)
        try:
            header = weights.read_header(path)
        except WeightsError:
            continue
        assert len(data) == len(whole) and header.parameters <= 64


def test_a_missing_file_is_one_line(tmp_path):
    with pytest.raises(WeightsError, match="No such file"):
        weights.read_safetensors(tmp_path / "none.safetensors")


@pytest.mark.skipif(sys.platform == "win32", reason="permissions are POSIX's")
def test_permissions_are_those_of_the_file_replaced_or_of_any_new_one(tmp_path):
    (tmp_path / "plain").touch()
    for name in ("old", "new"):
        if name == "old":
            (tmp_path / name).touch(0o604)
            (tmp_path / name).chmod(0o604)
        checkpoint = Checkpoint(architecture="a", config={}, state={})
        weights.write_safetensors(tmp_path / name, checkpoint)
    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()}
    assert modes["old"] == 0o604 and modes["new"] == modes["plain"]
