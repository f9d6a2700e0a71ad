"""Pickles and foreign states made into weights files."""

import copy
import io
import zipfile

import pytest
from published_vdvae import cut, pickled, published_state, write_published
from weight_files import Marker, left_in

from vdsr_cli import weights
from vdsr_cli.errors import UsageError, WeightsError
from vdsr_cli.weights.pickles import read_pickle
from vdsr_cli.weights.runs import read_checkpoint

pytestmark = pytest.mark.usefixtures("small_published")


@pytest.mark.parametrize("prefix", ["", "module."])
@pytest.mark.parametrize("is_legacy", [True, False])
def test_published_files_come_through_equal(tmp_path, prefix, is_legacy):
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
def test_a_decoder_that_is_not_whole_is_refused(tmp_path, lost, problem):
    source = write_published(tmp_path / "a.th", cut(published_state(), lost))
    with pytest.raises(WeightsError, match=problem):
        weights.convert(source, tmp_path / "out.safetensors")
    assert left_in(tmp_path) == ["a.th"]


def test_a_file_of_another_configuration_is_refused(tmp_path):
    source = write_published(tmp_path / "a.th", published_state("imagenet64"))
    with pytest.raises(WeightsError, match="do not fit"):
        weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
    with pytest.raises(UsageError, match="no published configuration") as caught:
        weights.convert(source, tmp_path / "out.safetensors", "ffhq64")
    assert "imagenet64" in caught.value.hint
    assert weights.convert(source, tmp_path / "b.safetensors").config == {"published": "imagenet64"}


@pytest.mark.parametrize("lost", ["encoder.enc_blocks.7.", "encoder."])
def test_an_encoder_may_lack_blocks(tmp_path, lost):
    state = cut(published_state(), lost)
    source = write_published(tmp_path / "a.th", state)
    header = weights.convert(source, tmp_path / "out.safetensors")
    assert header.tensors.keys() == state.keys()


@pytest.mark.parametrize("is_legacy", [True, False])
def test_code_is_refused_and_never_runs(tmp_path, is_legacy):
    marker, source = tmp_path / "marker", tmp_path / "evil.th"
    hostile = published_state() | {"decoder.gain": Marker(marker)}
    source.write_bytes(pickled(hostile, is_legacy=is_legacy))
    with pytest.raises(WeightsError, match="this file would run code"):
        weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
    assert left_in(tmp_path) == ["evil.th"]


def test_the_hostile_file_is_hostile(tmp_path):
    import torch

    source = io.BytesIO(pickled({"a": Marker(tmp_path / "marker")}))
    torch.load(source, weights_only=False)
    assert (tmp_path / "marker").exists()


def test_damage_is_one_line(tmp_path):
    source = tmp_path / "a.th"
    for is_legacy in (True, False):
        whole = pickled(published_state(), is_legacy=is_legacy)
        for size in range(0, len(whole), len(whole) // 40):
            source.write_bytes(whole[:size])
            with pytest.raises(WeightsError) as caught:
                weights.convert(source, tmp_path / "out.safetensors", "ffhq256")
            assert "\n" not in str(caught.value)
    assert left_in(tmp_path) == ["a.th"]


def test_only_a_flat_table_of_tensors_will_do(tmp_path):
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
def test_what_grows_in_memory_is_refused_unread(tmp_path, monkeypatch, pickle, copies, said):
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
