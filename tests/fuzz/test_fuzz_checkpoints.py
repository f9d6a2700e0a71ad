"""Weights files that lie: refused in one line, before they take memory or run anything."""

import contextlib
import io
import json
import pickle
import resource
import struct
import sys
import zipfile
from dataclasses import asdict

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from loaded import CPU
from mutations import EXTREMES, mutated

from vdsr_cli import loading
from vdsr_cli.errors import VdsrError, WeightsError
from vdsr_cli.models.presets import PRESETS
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.models.registry import ARCHITECTURES, build_empty, build_model, config_of
from vdsr_cli.models.srvae_config import DenseSpec, SRVAEConfig
from vdsr_cli.weights.pickles import read_pickle

BOUND_BYTES = 100 << 20
NUMBERS = st.one_of(
    st.sampled_from(EXTREMES), st.integers(-(2**70), 2**70), st.floats(), st.just(10**4000)
)
LEAVES = st.one_of(NUMBERS, st.none(), st.booleans(), st.text(max_size=8), st.just("9x99999999"))
VALUES = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=5,
)


def peak_bytes() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def refused_or_fine(action) -> object:
    """The result, or None after one line of the project's own error; memory stays bounded."""
    before = peak_bytes()
    try:
        return action()
    except VdsrError as error:
        assert "\n" not in str(error)
        return None
    finally:
        assert peak_bytes() - before < BOUND_BYTES


@pytest.fixture(scope="module")
def checkpoint(tiny_path) -> bytes:
    return tiny_path.read_bytes()


@pytest.fixture
def load(tmp_path):
    """Loads bytes as ``vdsr upscale --model`` does."""

    def run(data: bytes) -> object:
        path = tmp_path / "a.safetensors"
        path.write_bytes(data)
        return refused_or_fine(lambda: loading.load(str(path), CPU, expects=Sampler))

    return run


def with_header(data: bytes, change) -> bytes:
    """The file with another header; ``change`` gets the table and may replace it."""
    (length,) = struct.unpack_from("<Q", data)
    table = json.loads(data[8 : 8 + length])
    text = json.dumps(change(table) or table).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + length :]


def places(value: object, path: tuple = ()) -> list[tuple]:
    """Where in a tree of lists and tables there is something to replace."""
    below = []
    if isinstance(value, dict):
        below = [p for key, item in value.items() for p in places(item, (*path, key))]
    elif isinstance(value, list):
        below = [p for index, item in enumerate(value) for p in places(item, (*path, index))]
    return [path, *below] if path else below


def put(tree, path: tuple, value: object) -> None:
    for step in path[:-1]:
        tree = tree[step]
    tree[path[-1]] = value


@given(st.data())
def test_damaged_bytes(checkpoint, load, data):
    load(data.draw(mutated([checkpoint])))


@given(st.data())
def test_headers_that_lie_about_tensors(checkpoint, load, data):
    def change(table):
        where = data.draw(st.sampled_from(places(table)))
        put(table, where, data.draw(VALUES))

    load(with_header(checkpoint, change))


@given(st.data())
def test_configurations_of_anything(checkpoint, load, data):
    def change(table):
        facts = json.loads(table["__metadata__"]["vdsr"])
        facts["architecture"] = data.draw(
            st.one_of(st.just(facts["architecture"]), st.sampled_from(sorted(ARCHITECTURES)))
        )
        for where in data.draw(st.lists(st.sampled_from(places(facts["config"])), max_size=3)):
            # What an earlier change has replaced is no longer there.
            with contextlib.suppress(KeyError, TypeError, IndexError):
                put(facts["config"], where, data.draw(VALUES))
        table["__metadata__"]["vdsr"] = json.dumps(facts)

    load(with_header(checkpoint, change))


SMALL_VDVAE = {
    "image_size": 8,
    "enc_blocks": "8x1,8d2,4x1,4d4,1x1",
    "dec_blocks": "1x1,4m1,8m4",
    "width": 8,
    "input_shift": 0.0,
    "input_scale": 1.0,
}
ONE, TWO = (DenseSpec(growth=2, steps=1, depth=depth) for depth in (1, 2))
CONFIGS = [
    ("compact-vdvae-sr", asdict(PRESETS["vdvae-sr-x4-tiny"])),
    ("compact-cvdvae", {"hierarchy": asdict(PRESETS["vdvae-sr-x4-tiny"]), "conditioned_blocks": 1}),
    (
        "srvae",
        asdict(
            SRVAEConfig(
                flow=ONE,
                q_u=ONE,
                p_y=ONE,
                q_z=TWO,
                p_z_y=ONE,
                p_z_u=ONE,
                p_z=ONE,
                p_x_z=TWO,
                p_x=ONE,
            )
        ),
    ),
    ("cnn-vae", {}),
    ("openai-vdvae", SMALL_VDVAE),
]


@pytest.mark.parametrize(("architecture", "config"), CONFIGS)
def test_a_sound_configuration_is_built(architecture, config):
    model = build_model(architecture, config)
    numbers = sum(p.numel() for p in model.parameters())
    guarded = build_empty(architecture, config, stored=numbers)
    assert config_of(guarded) == config_of(model)
    assert all(p.is_meta for p in (*guarded.parameters(), *guarded.buffers()))
    with pytest.raises(WeightsError, match="more than the"):
        build_empty(architecture, config, stored=numbers // 5)


@pytest.mark.parametrize(("architecture", "config"), CONFIGS)
def test_every_number_of_a_configuration_may_be_absurd(architecture, config):
    for value in (0, 1000, 2**31, 2**70, 0.5, None, "9x999999", "999999x9,1x1"):
        for where in places(config) if config else [("decoder_width",), ("encoder_width",)]:
            changed = json.loads(json.dumps(config))
            put(changed, where, value)
            refused_or_fine(lambda c=changed: build_empty(architecture, c, stored=100_000))


@pytest.mark.parametrize("config", [{"levels": [], "scale": 4}, {"levels": 3, "scale": 4}, {}])
def test_an_empty_configuration_is_one_line(config):
    with pytest.raises(WeightsError, match="configuration is not valid"):
        build_empty("compact-vdvae-sr", config, stored=1)


# Pickles

GLOBALS = [
    b"cos\nsystem\n", b"cposix\nsystem\n", b"cbuiltins\neval\n", b"cbuiltins\nexec\n",
    b"cbuiltins\ngetattr\n", b"c__builtin__\neval\n", b"csubprocess\nPopen\n",
    b"cvdsr_cli.cli.app\nmain\n", b"ctorch.hub\nload\n", b"cpickle\nloads\n",
    b"c__main__\nMarker\n", b"\x8c\x05posix\x8c\x06system\x93",
]  # fmt: skip
CALLS = [
    b"(V%s\ntR", b"(V%s\nt\x81", b"(V%s\nl\x85R", b"(V%s\ntR}b", b"V%s\n\x85R", b"(V%s\ntR.",
]  # fmt: skip
BOMBS = [
    b"cbuiltins\nbytearray\n\x8a\x05\x00\x00\x00\x00\x40\x85R",
    b"c__builtin__\nbytearray\n\x8a\x05\x00\x00\x00\x00\x40\x85R",
    b"ctorch\nFloatStorage\n\x8a\x05\x00\x00\x00\x00\x40\x85R",
]


def archived(
    content: bytes, *, compression: int = zipfile.ZIP_STORED, record: bytes = b""
) -> bytes:
    """A pickle as torch keeps it today."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", compression) as archive:
        archive.writestr("archive/data.pkl", content)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
        archive.writestr("archive/data/0", record)
    return stream.getvalue()


def legacy(content: bytes) -> bytes:
    """A pickle as torch kept it before."""
    head = (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})
    return b"".join(pickle.dumps(part, 2) for part in head) + content + pickle.dumps([], 2)


@pytest.fixture
def read(tmp_path):
    def run(data: bytes) -> object:
        path = tmp_path / "a.pth"
        path.write_bytes(data)
        return refused_or_fine(lambda: read_pickle(path))

    return run


@pytest.fixture
def unrun(tmp_path):
    """A command that would leave a mark; the test fails where the mark is."""
    mark = tmp_path / "executed"
    yield f"touch {mark}".encode()
    assert not mark.exists()


@given(
    st.lists(st.sampled_from(GLOBALS + BOMBS), min_size=1, max_size=3),
    st.lists(st.sampled_from(CALLS), max_size=3),
    st.binary(max_size=6),
    st.sampled_from([archived, legacy]),
)
def test_opcodes_that_call_are_refused_and_not_run(read, unrun, names, calls, noise, packed):
    body = b"".join(names) + b"".join(call.replace(b"%s", unrun) for call in calls)
    for content in (body + noise + b".", noise + body + b".", b"}(X\x01\0\0\0a" + body + b"u."):
        assert read(packed(b"\x80\x02" + content)) is None


def test_damaged_pickles(read, unrun):
    evil = archived(b"\x80\x02cposix\nsystem\nX\x20\0\0\0" + unrun.ljust(32) + b"\x85R.")

    # Saved once: the older format holds an address in memory, so no two are alike.
    @given(st.one_of(*(mutated([saved(is_zip=is_zip), evil]) for is_zip in (False, True))))
    def damaged(content: bytes) -> None:
        read(content)

    damaged()


def saved(*, is_zip: bool) -> bytes:
    buffer = io.BytesIO()
    torch.save({"a": torch.ones(7, 3)}, buffer, _use_new_zipfile_serialization=is_zip)
    return buffer.getvalue()


@pytest.mark.parametrize("bomb", BOMBS[:2])
@pytest.mark.parametrize("packed", [archived, legacy])
def test_a_small_pickle_that_asks_for_much_memory(read, tmp_path, bomb, packed):
    """torch's own restricted reader would make that array of a terabyte."""
    assert read(packed(b"\x80\x02}X\x01\0\0\0a" + bomb + b"s.")) is None


def test_a_record_that_deflates_to_little(tmp_path):
    buffer = io.BytesIO()
    torch.save({"a": torch.zeros(1_000_000)}, buffer)
    with zipfile.ZipFile(buffer) as archive:
        content = next(archive.read(n) for n in archive.namelist() if n.endswith("data.pkl"))
    path = tmp_path / "a.pth"
    path.write_bytes(archived(content, compression=zipfile.ZIP_DEFLATED, record=bytes(4_000_000)))
    assert path.stat().st_size < 10_000
    with pytest.raises(WeightsError, match="compressed"):
        read_pickle(path)


def test_plain_tensors_are_read(tmp_path):
    state = {"a": torch.ones(2), "b": torch.nn.Parameter(torch.zeros(3).bfloat16())}
    for is_zip in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=is_zip)
        assert read_pickle(tmp_path / "a.pth")["b"].dtype == torch.bfloat16
