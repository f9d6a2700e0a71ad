"""Weights: the table, the files, the downloads; against a real server on this machine."""

import copy
import hashlib
import io
import json
import os
import random
import re
import resource
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest
from hub_server import COMMIT, Fault, serve_hub
from published_vdvae import cut, pickled, published_state, write_published

from vdsr_cli import weights
from vdsr_cli.errors import OutputError, UsageError, WeightsError
from vdsr_cli.weights import Checkpoint, WeightsRecord, cache, fetch
from vdsr_cli.weights.fetch import Download
from vdsr_cli.weights.pickles import read_pickle
from vdsr_cli.weights.records import did_you_mean
from vdsr_cli.weights.runs import read_checkpoint
from vdsr_cli.weights.sources import PUBLISHER, Bundled, Hub, Web, mirrored, parse_source

CLI = """
import sys
from vdsr_cli.cli.weights import app
from vdsr_cli.errors import VdsrError
try:
    app()
except VdsrError as error:
    sys.exit(print(f"error: {error}\\ntip: {error.hint}", file=sys.stderr) or error.exit_code)
"""

WORKER = """
import json, os, sys
from typer.testing import CliRunner
from vdsr_cli.cli.weights import app
from vdsr_cli.errors import VdsrError
for line in sys.stdin:
    os.environ["VDSR_HOME"], *arguments = json.loads(line)
    result = CliRunner().invoke(app, arguments)
    error = result.exception
    is_ours = isinstance(error, VdsrError)
    said = f"error: {error}\\ntip: {error.hint}" if is_ours else f"Traceback: {error!r}"
    code = error.exit_code if is_ours else result.exit_code
    print(json.dumps([code, result.stdout.strip(), said if error else ""]), flush=True)
"""


class Marker:
    """What unpickling this would do: make a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def safetensors(seed: int = 0, numbers: int = 50_000) -> bytes:
    """A small weights file of ours, made without torch."""
    data = random.Random(seed).randbytes(4 * numbers)
    card = json.dumps({"architecture": "tiny", "config": {"width": 4}, "card": {"seed": seed}})
    entry = {"dtype": "F32", "shape": [numbers], "data_offsets": [0, len(data)]}
    header = json.dumps({"__metadata__": {"vdsr": card}, "layer.weight": entry}).encode()
    return len(header).to_bytes(8, "little") + header + data


def left_in(folder: Path) -> list[str]:
    """Every file in a cache but for locks and the tag that says it is one."""
    files = (path for path in folder.rglob("*") if path.is_file() or path.is_symlink())
    return sorted(p.name for p in files if p.suffix != ".lock" and p.name != "CACHEDIR.TAG")


@pytest.fixture(scope="module")
def server():
    with serve_hub() as hub:
        yield hub


@pytest.fixture
def hub(server):
    """The server, with nothing on it."""
    for table in (server.files, server.errors, server.redirects, server.faults, server.requests):
        table.clear()
    return server


@pytest.fixture
def home(tmp_path, monkeypatch):
    """An empty cache, no proxies, and no pauses between tries."""
    for name in [name for name in os.environ if name.lower().endswith("_proxy")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "home"))
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setattr(fetch, "MAX_PAUSE_S", 0.01)
    return tmp_path / "home"


@pytest.fixture
def register(monkeypatch):
    """Put rows into the table of models, for this test."""

    def add(**facts: object) -> WeightsRecord:
        base = {"name": "test/model", "architecture": "tiny", "summary": "s", "licence": "MIT"}
        record = WeightsRecord(**(base | facts))
        monkeypatch.setattr("vdsr_cli.weights.store.load_records", lambda: {record.name: record})
        return record

    return add


@pytest.fixture(scope="module")
def environment(server, tmp_path_factory):
    """The environment of a process whose hub is the one of this machine."""
    inherited = {k: v for k, v in os.environ.items() if not k.lower().endswith("_proxy")}
    return inherited | {
        "HF_ENDPOINT": server.url,
        "HF_HOME": str(tmp_path_factory.mktemp("hf")),
        "HF_HUB_DOWNLOAD_TIMEOUT": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
    }


@pytest.fixture
def repo(request):
    """A repository that no other test uses: the hub's cache is one for them all."""
    return "someone/" + re.sub(r"[^a-z0-9]+", "-", request.node.name.lower()).strip("-")


@pytest.fixture
def hub_cache(environment, repo):
    """Where the hub's cache keeps that repository."""
    return Path(environment["HF_HOME"]) / "hub" / f"models--{repo.replace('/', '--')}"


@pytest.fixture
def run_python(environment, home):
    """Run a script in a process of its own and return what it printed."""

    def run(script: str) -> str:
        done = subprocess.run(
            [sys.executable, "-c", script],
            env=environment | {"VDSR_HOME": str(home)},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    return run


@pytest.fixture
def start_cli(environment, home):
    """Start `vdsr weights ARGUMENTS` in a process of its own."""

    def start(*arguments: str, limit_bytes: int | None = None, **variables: str):
        limit = (limit_bytes, limit_bytes)
        return subprocess.Popen(
            [sys.executable, "-c", CLI, *arguments],
            env=environment | {"VDSR_HOME": str(home)} | variables,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            preexec_fn=(lambda: resource.setrlimit(resource.RLIMIT_FSIZE, limit))
            if limit_bytes
            else None,
        )

    return start


@pytest.fixture
def run_cli(start_cli):
    """Run `vdsr weights ARGUMENTS` in a process of its own: (exit code, stdout, stderr)."""

    def run(*arguments: str, **options):
        process = start_cli(*arguments, **options)
        out, err = process.communicate(timeout=60)
        return process.returncode, out.strip(), err

    return run


@pytest.fixture(scope="module")
def worker(environment):
    """One process for many commands: starting one takes a second, most of it imports."""
    command = [sys.executable, "-c", WORKER]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.stdin.close()


@pytest.fixture
def vdsr_weights(worker, home):
    """Run `vdsr weights ARGUMENTS` in the worker: (exit code, stdout, error and tip)."""

    def run(*arguments: str):
        worker.stdin.write(json.dumps([str(home), *arguments]) + "\n")
        worker.stdin.flush()
        return tuple(json.loads(worker.stdout.readline()))

    return run


class TestTable:
    def test_every_row_is_sound(self):
        records = weights.load_records()
        assert next(iter(records)) == "vdvae-sr-x4"
        published = {name for name in records if name.startswith("openai/")}
        seeds = {f"openai/cifar10-seed{seed}" for seed in range(4)}
        assert published == seeds | {
            f"openai/{name}" for name in ("ffhq256", "imagenet64", "imagenet32", "ffhq1024")
        }
        for name in published:
            assert records[name].source.endswith("-model-ema.th")
            assert records[name].architecture == "openai-vdvae"
            assert records[name].config
            assert records[name].scores

    def test_every_row_is_of_a_network_that_can_be_built(self):
        from vdsr_cli.models.registry import ARCHITECTURES
        from vdsr_cli.models.vdvae_config import PUBLISHED

        for record in weights.load_records().values():
            assert record.architecture in ARCHITECTURES
            assert record.config is None or record.config in PUBLISHED

    @pytest.mark.parametrize("record", weights.load_records().values(), ids=lambda r: r.name)
    def test_bundled_files_are_the_published_ones(self, record):
        if not isinstance(record.location, Bundled):
            assert record.sha256 or record.trust_on_first_use
            return
        path = weights.locate(record)
        if path is None:
            pytest.skip(f"{record.source} is not bundled yet")
        assert record.sha256 == cache.hash_file(path)
        assert record.bytes == path.stat().st_size
        assert weights.read_header(path).architecture == record.architecture
        assert record.scores or record.scale is None, "what upscales has figures"

    @pytest.mark.parametrize(
        ("row", "problem"),
        [
            ("source = 'hf://a/b@main/f.safetensors'\nsha256 = '{0}'", "pin its revision"),
            ("source = 'https://a/f.safetensors'", "has no sha256"),
            ("source = 'https://a/f.safetensors'\nsha256 = 'ABC'", "malformed sha256"),
            ("source = 'http://example.org/f'\nsha256 = '{0}'", "https only"),
            ("source = 'f.safetensors'\ncolour = 'red'", "unknown key 'colour'"),
            ("source = 'f.safetensors'\nscale = 0", "impossible scale"),
            ("source = 'f.safetensors'\nscale = '4'", "'m'"),
            ("source = '../f.safetensors'", "bundled"),
            ("", "source"),
            ("source = ", "Invalid value"),
        ],
    )
    def test_unsound_rows_are_refused(self, tmp_path, row, problem):
        common = "architecture = 'a'\nsummary = 's'\nlicence = 'MIT'\n"
        table = tmp_path / "weights.toml"
        table.write_text(f"[models.m]\n{common}{row.format('0' * 64)}\n")
        with pytest.raises(WeightsError, match=problem):
            weights.load_records(table)

    def test_a_missing_table_is_one_line(self, tmp_path):
        with pytest.raises(WeightsError, match="cannot read the table"):
            weights.load_records(tmp_path / "none.toml")

    @pytest.mark.parametrize("typed", ["ffhq256", "openai/ffhq-256", "FFHQ256", "openai/ffqh256"])
    def test_the_nearest_name_is_offered(self, typed):
        assert "'openai/ffhq256'" in did_you_mean(typed, weights.load_records())
        with pytest.raises(WeightsError) as caught:
            weights.find_record(typed)
        assert "openai/ffhq256" in caught.value.hint


class TestSources:
    def test_addresses_are_read(self):
        commit = "0" * 40
        assert parse_source(f"hf://o/r@{commit}/a/b.safetensors") == Hub(
            repo_id="o/r", revision=commit, filename="a/b.safetensors"
        )
        assert parse_source("hf://o/r/b.safetensors") == Hub(
            repo_id="o/r", filename="b.safetensors"
        )
        assert parse_source("hf://o/r@refs%2Fpr%2F1/b.bin").revision == "refs/pr/1"
        assert parse_source(f"https://h/f.th#sha256={'A' * 64}") == Web(
            url="https://h/f.th", sha256="a" * 64
        )
        assert parse_source("http://127.0.0.1:80/f") == Web(url="http://127.0.0.1:80/f")

    @pytest.mark.parametrize(
        "text",
        [
            "hf://owner/file",
            "hf://o/r/../x",
            "hf://o/r/a//b",
            "hf://o/r@/f",
            "hf://o/r/a\\b",
            "http://example.org/f",
            "http://127.0.0.1.example.org/f",
            "https://user:secret@example.org/f",
            "https://",
            "https://[::1/f",
            "https://example.org/a b",
            "https://example.org/f\r\nX: y",
            "https://example.org/f#sha256=12",
            "https://example.org/f#md5=12",
            "",
            "..",
            "a/b",
        ],
    )
    def test_everything_else_is_refused(self, text):
        with pytest.raises(WeightsError):
            parse_source(text)


class TestSafetensors:
    def test_round_trip_keeps_everything(self, tmp_path):
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

    def test_a_missing_folder_is_made(self, tmp_path):
        path = tmp_path / "no" / "such" / "a.safetensors"
        weights.write_safetensors(path, Checkpoint(architecture="a", config={}, state={}))
        assert weights.read_header(path).architecture == "a"

    def test_a_failed_write_leaves_nothing(self, tmp_path):
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
    def test_an_architecture_is_a_plain_name(self, name):
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
    def test_a_lying_header_is_refused(self, tmp_path, table):
        path = self.write(tmp_path / "a.safetensors", table, b"\0" * 4)
        with pytest.raises(WeightsError) as caught:
            weights.read_header(path)
        assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)

    @pytest.mark.parametrize("length", [0, 1, 1 << 24, 1 << 40, (1 << 64) - 1])
    def test_an_impossible_header_length_is_refused(self, tmp_path, length):
        path = self.write(tmp_path / "a.safetensors", b"{}", b"\0" * 100, length)
        with pytest.raises(WeightsError, match="no header"):
            weights.read_header(path)

    def test_no_change_and_no_cut_gets_past(self, tmp_path):
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

    def test_a_missing_file_is_one_line(self, tmp_path):
        with pytest.raises(WeightsError, match="No such file"):
            weights.read_safetensors(tmp_path / "none.safetensors")


@pytest.mark.usefixtures("small_published")
class TestConvert:
    @pytest.mark.parametrize("prefix", ["", "module."])
    @pytest.mark.parametrize("is_legacy", [True, False])
    def test_published_files_come_through_equal(self, tmp_path, prefix, is_legacy):
        source, target = tmp_path / "model-ema.th", tmp_path / "model.safetensors"
        source.write_bytes(pickled(published_state(prefix=prefix), is_legacy=is_legacy))
        header = weights.convert(source, target, "ffhq256")
        assert header == weights.read_header(target)
        checkpoint = weights.read_safetensors(target)
        assert checkpoint.architecture == "openai-vdvae"
        assert checkpoint.config == {"published": "ffhq256"}
        assert weights.convert(source, target) == header
        wanted = published_state()
        assert set(checkpoint.state) == set(wanted)
        assert all(checkpoint.state[name].equal(tensor) for name, tensor in wanted.items())

    @pytest.mark.parametrize(
        ("lost", "problem"),
        [
            ("decoder.gain", "1 missing: decoder.gain"),
            ("decoder.dec_blocks.5.", "5 stochastic layers"),
            ("decoder.", "0 stochastic layers"),
        ],
    )
    def test_a_decoder_that_is_not_whole_is_refused(self, tmp_path, lost, problem):
        source = write_published(tmp_path / "a.th", cut(published_state(), lost))
        with pytest.raises(WeightsError, match=problem):
            weights.convert(source, tmp_path / "out.safetensors")
        assert left_in(tmp_path) == ["a.th"]

    def test_a_file_of_another_configuration_is_refused(self, tmp_path):
        source = write_published(tmp_path / "a.th", published_state("imagenet64"))
        with pytest.raises(WeightsError, match="do not fit"):
            weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
        with pytest.raises(UsageError, match="no published configuration") as caught:
            weights.convert(source, tmp_path / "out.safetensors", "ffhq64")
        assert "imagenet64" in caught.value.hint
        assert weights.convert(source, tmp_path / "b.safetensors").config == {
            "published": "imagenet64"
        }

    @pytest.mark.parametrize("lost", ["encoder.enc_blocks.7.", "encoder."])
    def test_an_encoder_may_lack_blocks(self, tmp_path, lost):
        state = cut(published_state(), lost)
        source = write_published(tmp_path / "a.th", state)
        header = weights.convert(source, tmp_path / "out.safetensors")
        assert header.tensors.keys() == state.keys()

    @pytest.mark.parametrize("is_legacy", [True, False])
    def test_code_is_refused_and_never_runs(self, tmp_path, is_legacy):
        marker, source = tmp_path / "marker", tmp_path / "evil.th"
        hostile = published_state() | {"decoder.gain": Marker(marker)}
        source.write_bytes(pickled(hostile, is_legacy=is_legacy))
        with pytest.raises(WeightsError, match="this file would run code"):
            weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
        assert left_in(tmp_path) == ["evil.th"]

    def test_the_hostile_file_is_hostile(self, tmp_path):
        import torch

        source = io.BytesIO(pickled({"a": Marker(tmp_path / "marker")}))
        torch.load(source, weights_only=False)
        assert (tmp_path / "marker").exists()

    def test_damage_is_one_line(self, tmp_path):
        source = tmp_path / "a.th"
        for is_legacy in (True, False):
            whole = pickled(published_state(), is_legacy=is_legacy)
            for size in range(0, len(whole), len(whole) // 40):
                source.write_bytes(whole[:size])
                with pytest.raises(WeightsError) as caught:
                    weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
                assert "\n" not in str(caught.value)
        assert left_in(tmp_path) == ["a.th"]

    def test_only_a_flat_table_of_tensors_will_do(self, tmp_path):
        import torch

        one = torch.ones(1)
        source = tmp_path / "a.th"
        for loaded in (
            one,
            {},
            {"a": 3},
            {3: one},
            {"state_dict": {"a": one}},
            {"a": one, "module.a": one},
            {"a": one.to_sparse()},
            {"a": torch.ones(1, device="meta")},
            {"a": one.expand(1_000_000)},
        ):
            source.write_bytes(pickled(loaded))
            with pytest.raises(WeightsError, match="not a file of weights"):
                weights.convert(source, tmp_path / "out.safetensors", "ffhq256")

    @pytest.mark.parametrize(
        ("pickle", "copies", "said"),
        [
            (b"\x80\x04" + b"\x8f" * 9 + b".", 0, "more than plain tensors"),
            (b"\x80\x02" + b"]" * 99 + b".", 0, "more parts"),
            (b"\x80\x02].", 9, "overlap"),
        ],
        ids=["sets", "parts", "overlapping records"],
    )
    def test_what_grows_in_memory_is_refused_unread(
        self, tmp_path, monkeypatch, pickle, copies, said
    ):
        """Whoever reads it: as published weights or as a run's checkpoint."""
        monkeypatch.setattr("vdsr_cli.weights.pickles._MOST_OPCODES", 50)
        source = tmp_path / "last.pt"
        with zipfile.ZipFile(source, "w") as archive:
            archive.writestr("archive/data.pkl", pickle)
            archive.writestr("archive/data/0", bytes(1000))
            for index in range(copies):
                again = copy.copy(archive.filelist[-1])
                again.filename = f"archive/data/{index + 1}"
                archive.filelist.append(again)
        for read in (read_pickle, read_checkpoint):
            with pytest.raises(WeightsError, match=said):
                read(source)


class TestWeb:
    def test_a_download_is_verified_and_cached(self, hub, home, register):
        data, seen = safetensors(), []
        url = hub.put("m.safetensors", data)
        record = register(source=url, sha256=sha256(data), bytes=len(data))
        assert weights.check(record) == "absent"
        found = weights.resolve("test/model", progress=lambda *at: seen.append(at))
        assert found.record == record
        assert found.path.read_bytes() == data
        assert seen[-1] == (len(data), len(data))
        assert weights.resolve("test/model", offline=True).path == found.path
        assert len(hub.downloads) == 1
        assert (weights.locate(record), weights.check(record)) == (found.path, "ok")
        assert left_in(home) == sorted([found.path.name, found.path.stem + ".json"])

    def test_a_direct_address_needs_its_hash(self, hub, home):
        data = safetensors()
        url = hub.put("m.safetensors", data)
        assert weights.resolve(f"{url}#sha256={sha256(data)}").path.read_bytes() == data
        with pytest.raises(WeightsError, match="without a hash"):
            weights.resolve(url)

    def test_a_broken_connection_is_taken_up_again(self, hub, home, register):
        data = safetensors()
        register(source=hub.put("m.safetensors", data), sha256=sha256(data))
        cut = Fault(kind="cut", at=60_000)
        hub.fail("/plain/m.safetensors", cut, Fault(kind="status", at=503), cut)
        assert weights.resolve("test/model").path.read_bytes() == data
        ranges = [seen.range for seen in hub.requests]
        assert ranges == [None, "bytes=60000-", "bytes=60000-", "bytes=120000-"]

    def test_an_interrupted_run_is_gone_on_with(self, hub, home, register):
        data = safetensors()
        register(source=hub.put("m.safetensors", data), sha256=sha256(data))

        def interrupt(done: int, total: int | None) -> None:
            raise KeyboardInterrupt

        hub.fail("/plain/m.safetensors", Fault(kind="cut", at=50_000))
        with pytest.raises(KeyboardInterrupt):
            weights.resolve("test/model", progress=interrupt)
        (part,) = home.rglob("*.part")
        here = part.stat().st_size
        assert 0 < here <= 50_000
        assert weights.resolve("test/model").path.read_bytes() == data
        assert hub.requests[-1].range == f"bytes={here}-"
        assert not list(home.rglob("*.part*"))

    def test_a_replaced_file_is_not_mixed_with_the_old_one(self, hub, home, register):
        old, new = safetensors(1), safetensors(2)
        register(source=hub.put("m.safetensors", old), sha256=sha256(new))
        hub.fail("/plain/m.safetensors", *[Fault(kind="cut", at=50_000)] * 3)
        hub.fail("/plain/m.safetensors", *[Fault(kind="status", at=503)] * 4)
        with pytest.raises(WeightsError, match=r"150000 of \d+ bytes.* 503"):
            weights.resolve("test/model")
        hub.put("m.safetensors", new)
        assert weights.resolve("test/model").path.read_bytes() == new

    def test_a_complete_part_costs_no_request(self, hub, home, register):
        data = safetensors()
        url = hub.put("m.safetensors", data)
        register(source=url, sha256=sha256(data))
        entry = cache.entry_for(parse_source(url))
        fetch.fetch(Download(url=url), entry.part)
        assert weights.resolve("test/model").path.read_bytes() == data
        assert len(hub.downloads) == 1

    @pytest.mark.parametrize("fault", [Fault(kind="flip"), Fault(kind="short", at=1000)])
    def test_other_bytes_are_refused_and_leave_nothing(self, hub, home, register, fault):
        data = safetensors()
        register(source=hub.put("m.safetensors", data), sha256=sha256(data))
        hub.fail("/plain/m.safetensors", fault)
        with pytest.raises(WeightsError, match="refused and removed") as caught:
            weights.resolve("test/model")
        assert caught.value.exit_code == 4
        assert left_in(home) == []
        assert weights.resolve("test/model").path.read_bytes() == data

    def test_another_size_is_refused_before_the_bytes(self, hub, home, register):
        data = safetensors()
        url = hub.put("m.safetensors", data)
        register(source=url, sha256=sha256(data), bytes=len(data) - 1)
        with pytest.raises(WeightsError, match="not the"):
            weights.resolve("test/model")
        assert left_in(home) == []

    def test_a_hostile_header_is_refused_and_leaves_nothing(self, hub, home, register):
        data = (2).to_bytes(8, "little") + b"{}"
        register(source=hub.put("m.safetensors", data), sha256=sha256(data))
        with pytest.raises(WeightsError, match="refused and removed"):
            weights.resolve("test/model")
        assert left_in(home) == []

    def test_a_missing_file_is_not_asked_for_twice(self, hub, home, register):
        register(source=f"{hub.url}/plain/none.safetensors", sha256="0" * 64)
        with pytest.raises(WeightsError, match=r"no file at .* \(404\)"):
            weights.resolve("test/model")
        assert len(hub.downloads) == 1
        assert left_in(home) == []

    def test_a_server_that_hangs_is_given_up(self, hub, home):
        url = hub.put("m.safetensors", safetensors())
        hub.fail("/plain/m.safetensors", *[Fault(kind="hang")] * 2)
        patience = fetch.Patience(timeout_s=0.3, tries=2, backoff_s=0.01)
        with pytest.raises(WeightsError, match="timed out"):
            fetch.fetch(Download(url=url), home / "x.part", patience=patience)
        assert left_in(home) == []

    def test_a_hang_midway_is_got_over(self, hub, home):
        data = safetensors()
        url = hub.put("m.safetensors", data)
        hub.fail("/plain/m.safetensors", Fault(kind="hang", at=70_000))
        patience = fetch.Patience(timeout_s=0.3, tries=2, backoff_s=0.01)
        found = fetch.fetch(Download(url=url), home / "x.part", patience=patience)
        assert (found.sha256, found.size_bytes) == (sha256(data), len(data))
        assert hub.requests[-1].range == "bytes=70000-"

    def test_no_server_is_one_line(self, home):
        with pytest.raises(WeightsError, match="refused"):
            fetch.fetch(Download(url="http://127.0.0.1:9/f"), home / "x.part")
        assert left_in(home) == []

    def test_a_redirect_to_plain_http_is_not_followed(self, hub, home):
        hub.redirects["/plain/a"] = "http://example.org/f"
        with pytest.raises(WeightsError, match="https only"):
            fetch.fetch(Download(url=f"{hub.url}/plain/a"), home / "x.part")
        hub.redirects["/plain/a"] = hub.put("m", b"abc")
        assert fetch.fetch(Download(url=f"{hub.url}/plain/a"), home / "x.part").size_bytes == 3

    def test_a_damaged_cache_heals_or_says_so(self, hub, home, register):
        data = safetensors()
        record = register(source=hub.put("m.safetensors", data), sha256=sha256(data))
        path = weights.resolve("test/model").path
        for mend in (True, False):
            path.write_bytes(data[:-1] + b"?")
            assert weights.check(record) == "damaged"
            if mend:
                assert weights.resolve("test/model").path.read_bytes() == data
        with pytest.raises(WeightsError, match="offline"):
            weights.resolve("test/model", offline=True)

    def test_a_newer_table_fetches_the_newer_file(self, hub, home, register):
        for seed in (1, 2):
            data = safetensors(seed)
            register(source=hub.put("m.safetensors", data), sha256=sha256(data))
            assert weights.resolve("test/model").path.read_bytes() == data

    def test_a_cache_that_cannot_be_written_is_one_line(self, hub, tmp_path, home, monkeypatch):
        (tmp_path / "file").touch()
        monkeypatch.setenv("VDSR_HOME", str(tmp_path / "file" / "cache"))
        data = safetensors()
        with pytest.raises(WeightsError, match="cannot use the cache") as caught:
            weights.resolve(f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}")
        assert "VDSR_HOME" in caught.value.hint

    def test_a_full_disk_keeps_what_can_be_gone_on_with(self, hub, home, run_cli, vdsr_weights):
        data = safetensors()
        address = f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}"
        code, out, err = run_cli("download", address, limit_bytes=100_000)
        assert (code, out) == (4, "")
        assert "File too large" in err and "free some space" in err
        assert [path.stat().st_size for path in home.rglob("*.part")] == [100_000]
        code, out, _ = vdsr_weights("download", address)
        assert code == 0 and Path(out).read_bytes() == data
        assert hub.requests[-1].range == "bytes=100000-"

    def test_two_processes_at_once_make_one_download(self, hub, home, start_cli):
        data = safetensors(numbers=2_000_000)
        address = f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}"
        both = [start_cli("download", address) for _ in range(2)]
        paths = {process.communicate(timeout=60)[0].strip() for process in both}
        assert [process.returncode for process in both] == [0, 0]
        (path,) = paths
        assert Path(path).read_bytes() == data
        assert len(hub.downloads) == 1


@pytest.mark.usefixtures("small_published")
class TestPublishedPickles:
    @pytest.fixture
    def publish(self, hub, register):
        """Publish a state dict as OpenAI did: a pickle, and no hash."""

        def put(data: bytes) -> WeightsRecord:
            url = hub.put("ffhq256-iter-1700000-model-ema.th", data)
            return register(
                source=url, architecture="openai-vdvae", config="ffhq256", trust_on_first_use=True
            )

        return put

    def test_they_are_kept_as_safetensors(self, hub, home, publish):
        record = publish(pickled(published_state(prefix="module.")))
        path = weights.resolve("test/model").path
        checkpoint = weights.read_safetensors(path)
        assert (checkpoint.architecture, checkpoint.config["published"]) == (
            "openai-vdvae",
            "ffhq256",
        )
        wanted = published_state()
        assert all(checkpoint.state[name].equal(wanted[name]) for name in wanted)
        assert weights.resolve("test/model").path == path
        assert len(hub.downloads) == 1
        assert weights.check(record) == "ok"
        assert left_in(home) == sorted([path.name, path.stem + ".json"])

    def test_the_first_download_is_trusted_ever_after(self, hub, home, publish):
        first, second = pickled(published_state()), pickled(published_state(prefix="module."))
        record = publish(first)
        path = weights.resolve("test/model").path
        converted = path.read_bytes()
        publish(second)
        path.unlink()
        with pytest.raises(WeightsError, match="expected"):
            weights.resolve("test/model")
        assert weights.check(record) == "absent"
        publish(first)
        assert weights.resolve("test/model").path.read_bytes() == converted

    def test_code_is_refused_and_leaves_nothing(self, hub, home, tmp_path, publish):
        publish(pickled({"a": Marker(tmp_path / "marker")}))
        with pytest.raises(WeightsError, match="would run code"):
            weights.resolve("test/model")
        assert left_in(home) == []
        assert not (tmp_path / "marker").exists()

    def test_a_mirror_stands_for_the_publisher(self, hub, home, register, monkeypatch):
        monkeypatch.setenv("VDSR_OPENAI_ENDPOINT", f"{hub.url}/plain/")
        hub.put("assets/a-ema.th", pickled(published_state(prefix="module.")))
        facts = {"architecture": "openai-vdvae", "config": "ffhq256", "trust_on_first_use": True}
        register(source=f"{PUBLISHER}/assets/a-ema.th", **facts)
        path = weights.resolve("test/model").path
        assert weights.read_safetensors(path).state.keys() == published_state().keys()
        assert [seen.path for seen in hub.downloads] == ["/plain/assets/a-ema.th"]
        monkeypatch.delenv("VDSR_OPENAI_ENDPOINT")
        assert weights.resolve("test/model").path == path

    @pytest.mark.parametrize("mirror", ["", "http://127.0.0.1:1"])
    def test_no_other_address_is_mirrored(self, monkeypatch, mirror):
        monkeypatch.setenv("VDSR_OPENAI_ENDPOINT", mirror)
        for url in ("https://host.org/a.th", f"{PUBLISHER}.host.org/a.th"):
            assert mirrored(url) == url
        assert mirrored(f"{PUBLISHER}/a.th") == f"{mirror or PUBLISHER}/a.th"

    def test_without_a_row_a_pickle_is_not_fetched(self, hub, home, tmp_path):
        address = f"{hub.put('a.th', b'')}#sha256={'0' * 64}"
        for text in (address, f"hf://o/r@{COMMIT}/a.bin"):
            with pytest.raises(WeightsError, match="is a pickle") as caught:
                weights.resolve(text)
            assert "vdsr weights convert" in caught.value.hint
        assert hub.requests == []


class TestHub:
    @pytest.fixture
    def publish(self, hub, repo):
        """Put a large file on the hub; return its pinned address."""
        return lambda data: hub.publish(repo, "model.safetensors", data)

    def test_a_pinned_file_is_fetched_once(self, hub, repo, hub_cache, publish, run_cli):
        data = safetensors()
        address = publish(data)
        code, out, err = run_cli("download", address, HF_TOKEN="hf_secret")
        assert code == 0, err
        assert Path(out).read_bytes() == data
        assert Path(out).is_relative_to(hub_cache)
        tokens = {seen.path: seen.token for seen in hub.requests}
        assert tokens[f"/{repo}/resolve/{COMMIT}/model.safetensors"] == "Bearer hf_secret"
        assert tokens[hub.cdn_path(data)] is None
        assert len(hub.downloads) == 1
        before = len([seen for seen in hub.requests if "/resolve/" in seen.path])
        assert run_cli("download", address, "--offline")[1] == out
        assert run_cli("download", address, HF_HUB_OFFLINE="1")[1] == out
        assert len([seen for seen in hub.requests if "/resolve/" in seen.path]) == before
        assert len(hub.downloads) == 1

    def test_a_branch_is_asked_about_but_not_fetched_again(self, hub, publish, vdsr_weights):
        data = safetensors()
        address = publish(data).replace(f"@{COMMIT}", "")
        outs = {vdsr_weights("download", address)[1] for _ in range(2)}
        assert len(outs) == 1
        assert len(hub.downloads) == 1

    def test_a_broken_connection_is_taken_up_again(self, hub, publish, vdsr_weights):
        data = safetensors()
        address = publish(data)
        hub.fail(hub.cdn_path(data), Fault(kind="cut", at=60_000))
        code, out, err = vdsr_weights("download", address)
        assert code == 0, err
        assert Path(out).read_bytes() == data
        assert [seen.range for seen in hub.downloads] == [None, "bytes=60000-"]

    def test_a_killed_run_is_gone_on_with(self, hub, home, publish, vdsr_weights, start_cli):
        data = safetensors()
        address = publish(data)
        hub.fail(hub.cdn_path(data), Fault(kind="hang", at=60_000))
        process = start_cli("download", address, HF_HUB_DOWNLOAD_TIMEOUT="30")
        while not any(path.stat().st_size == 60_000 for path in home.rglob("*.part")):
            assert process.poll() is None
            time.sleep(0.05)
        process.kill()
        process.communicate(timeout=60)
        code, out, err = vdsr_weights("download", address)
        assert code == 0, err
        assert Path(out).read_bytes() == data
        assert hub.downloads[-1].range == "bytes=60000-"
        assert left_in(home) == []

    def test_a_server_out_of_breath_and_a_hang_are_got_over(self, hub, publish, vdsr_weights):
        data = safetensors()
        address = publish(data)
        hub.fail(hub.cdn_path(data), Fault(kind="status", at=500), Fault(kind="hang", at=500))
        code, out, err = vdsr_weights("download", address)
        assert code == 0, err
        assert Path(out).read_bytes() == data

    @pytest.mark.parametrize(
        ("fault", "problem"),
        [(Fault(kind="flip"), "expected"), (Fault(kind="short", at=999), "has 999 bytes")],
    )
    def test_other_bytes_are_refused_and_leave_nothing(
        self, hub, home, hub_cache, publish, vdsr_weights, fault, problem
    ):
        data = safetensors()
        address = publish(data)
        hub.fail(hub.cdn_path(data), fault)
        code, out, err = vdsr_weights("download", address)
        assert (code, out) == (4, "")
        assert problem in err
        assert "Traceback" not in err
        assert left_in(hub_cache) == left_in(home) == []

    def test_a_full_cache_is_not_blamed_on_the_file(self, hub, repo, run_python):
        data = pickled(published_state())
        address = hub.publish(repo, "ema.th", data)
        out = run_python(
            f"""
import vdsr_cli.weights.store as module
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import WeightsRecord
record = WeightsRecord(name="m", architecture="openai-vdvae", summary="s", licence="MIT",
                       config="ffhq256", source={address!r}, sha256={sha256(data)!r})
module.load_records = lambda: {{"m": record}}
def full(*_, **__):
    raise OSError(28, "No space left on device")
module.convert = full
try:
    module.resolve("m")
except WeightsError as error:
    print(error, module.hub.find_cached(record.location) is not None)
"""
        )
        assert "No space left" in out and out.endswith("True\n")

    def test_a_small_file_kept_in_git_comes_too(self, hub, repo, vdsr_weights):
        data = safetensors(numbers=10)
        address = hub.publish(repo, "model.safetensors", data, is_large=False)
        code, out, err = vdsr_weights("download", address)
        assert code == 0, err
        assert Path(out).read_bytes() == data

    def test_a_hostile_header_is_refused_and_leaves_nothing(self, publish, hub_cache, vdsr_weights):
        address = publish((1 << 60).to_bytes(8, "little") + b"{}")
        code, _, err = vdsr_weights("download", address)
        assert code == 4 and "no header" in err
        assert left_in(hub_cache) == []

    def test_a_damaged_cache_heals(self, publish, vdsr_weights):
        data = safetensors()
        address = publish(data)
        _, out, _ = vdsr_weights("download", address)
        Path(out).write_bytes(data[:-1])
        assert vdsr_weights("download", address)[:2] == (0, out)
        assert Path(out).read_bytes() == data

    def test_offline_without_a_cache_says_what_to_do(self, hub, publish, run_cli):
        address = publish(safetensors())
        code, _, err = run_cli("download", address, HF_HUB_OFFLINE="1")
        assert code == 4
        assert "tip: run `vdsr weights download`" in err
        assert not any("/resolve/" in seen.path for seen in hub.requests)

    @pytest.mark.parametrize(
        ("code", "problem"),
        [
            ("GatedRepo", "is gated"),
            ("RevisionNotFound", "no revision"),
            ("RepoNotFound", "no repository"),
            ("EntryNotFound", "no file model.safetensors"),
        ],
    )
    def test_what_is_not_there_is_named(self, hub, repo, publish, vdsr_weights, code, problem):
        address = publish(safetensors())
        hub.errors[f"/{repo}/resolve/{COMMIT}/model.safetensors"] = code
        exit_code, _, err = vdsr_weights("download", address)
        assert exit_code == 4
        assert problem in err and "Traceback" not in err

    def test_no_hub_is_said_soon(self, run_cli):
        code, _, err = run_cli(
            "download", f"hf://o/r@{COMMIT}/a.safetensors", HF_ENDPOINT="http://127.0.0.1:9"
        )
        assert code == 4
        assert "cannot be reached" in err and "HF_ENDPOINT" in err

    def test_a_cache_that_cannot_be_written_is_one_line(self, publish, tmp_path, run_cli):
        (tmp_path / "file").touch()
        address = publish(safetensors())
        code, _, err = run_cli("download", address, HF_HOME=str(tmp_path / "file" / "hf"))
        assert code == 4
        assert "HF_HOME" in err and "Traceback" not in err

    def test_two_processes_at_once_make_one_good_file(self, publish, start_cli):
        data = safetensors(numbers=1_000_000)
        address = publish(data)
        both = [start_cli("download", address) for _ in range(2)]
        paths = {process.communicate(timeout=60)[0].strip() for process in both}
        assert [process.returncode for process in both] == [0, 0]
        (path,) = paths
        assert Path(path).read_bytes() == data

    def test_a_row_with_another_hash_is_not_fetched(self, hub, publish, run_python):
        address = publish(safetensors())
        out = run_python(
            f"""
import vdsr_cli.weights.store as module
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import WeightsRecord
record = WeightsRecord(name="m", architecture="tiny", summary="s", licence="MIT",
                       source={address!r}, sha256="0" * 64)
module.load_records = lambda: {{"m": record}}
try:
    module.resolve("m")
except WeightsError as error:
    print(error, module.check(record))
"""
        )
        assert "expected 000" in out and out.endswith("absent\n")
        assert hub.downloads == []

    def test_a_published_pickle_of_the_hub_is_converted(self, hub, home, repo, run_python):
        data = pickled(published_state(prefix="module."))
        address = hub.publish(repo, "ema.th", data)
        out = run_python(
            f"""
import sys
import vdsr_cli.models.vdvae_config as configs
import vdsr_cli.weights.store as module
from vdsr_cli.weights import WeightsRecord
sys.path.insert(0, {str(Path(__file__).parent)!r})
from published_vdvae import TABLE
configs.PUBLISHED = TABLE
record = WeightsRecord(name="m", architecture="openai-vdvae", summary="s", licence="MIT",
                       config="ffhq256", source={address!r}, sha256={sha256(data)!r})
module.load_records = lambda: {{"m": record}}
for offline in (False, True):
    print(module.resolve("m", offline=offline).path, module.check(record))
"""
        )
        first, second = out.splitlines()
        assert first == second and first.endswith(" ok")
        path = Path(first.removesuffix(" ok"))
        assert path.is_relative_to(home)
        assert set(weights.read_safetensors(path).state) == set(published_state())
        assert len(hub.downloads) == 1


class TestLocalFiles:
    @pytest.mark.usefixtures("small_published")
    def test_a_published_pickle_is_converted_once(self, home, tmp_path):
        source = write_published(tmp_path / "my model.th", published_state(prefix="module."))
        path = weights.resolve(str(source)).path
        assert path.is_relative_to(home)
        assert weights.read_header(path).config == {"published": "ffhq256"}
        written = path.stat().st_mtime_ns
        assert weights.resolve(str(source)).path == path
        assert path.stat().st_mtime_ns == written
        path.write_bytes(b"damaged")
        assert weights.read_header(weights.resolve(str(source)).path).tensors
        write_published(source, published_state("imagenet64"))
        other = weights.resolve(str(source)).path
        assert other != path
        assert weights.read_header(other).config == {"published": "imagenet64"}

    def test_a_pickle_that_would_run_code_is_refused(self, home, tmp_path):
        source = write_published(tmp_path / "a.pth", {"a": Marker(tmp_path / "marker")})
        with pytest.raises(WeightsError, match="would run code"):
            weights.resolve(str(source))
        assert left_in(home) == []
        assert not (tmp_path / "marker").exists()

    def test_a_path_is_taken_as_it_is(self, tmp_path):
        path = tmp_path / "mine.safetensors"
        path.write_bytes(safetensors())
        assert weights.resolve(str(path)) == weights.ResolvedWeights(path=path, record=None)

    def test_neither_a_model_nor_a_file(self):
        with pytest.raises(WeightsError, match="no model and no file") as caught:
            weights.resolve("vdvae-sr-4x")
        assert "'vdvae-sr-x4'" in caught.value.hint

    def test_bundled_files_are_verified(self, tmp_path, monkeypatch, register):
        data = safetensors()
        path = tmp_path / "b.safetensors"
        monkeypatch.setattr("vdsr_cli.weights.store.bundled_path", lambda source: path)
        record = register(source="b.safetensors", sha256=sha256(data))
        with pytest.raises(WeightsError, match="missing"):
            weights.resolve("test/model")
        path.write_bytes(data)
        assert weights.resolve("test/model", offline=True).path == path
        path.write_bytes(data + b"?")
        assert weights.check(record) == "damaged"
        with pytest.raises(WeightsError, match="damaged"):
            weights.resolve("test/model")
        assert path.exists()
