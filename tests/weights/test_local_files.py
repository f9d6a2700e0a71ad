"""Files that are on this disk already."""

import pytest
from published_vdvae import published_state, write_published
from weight_files import Marker, left_in, safetensors, sha256

from vdsr_cli import weights
from vdsr_cli.errors import WeightsError


@pytest.mark.usefixtures("small_published")
def test_a_published_pickle_is_converted_once(home, tmp_path):
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


def test_a_pickle_that_would_run_code_is_refused(home, tmp_path):
    source = write_published(tmp_path / "a.pth", {"a": Marker(tmp_path / "marker")})
    with pytest.raises(WeightsError, match="would run code"):
        weights.resolve(str(source))
    assert left_in(home) == []
    assert not (tmp_path / "marker").exists()


def test_a_path_is_taken_as_it_is(tmp_path):
    path = tmp_path / "mine.safetensors"
    path.write_bytes(safetensors())
    assert weights.resolve(str(path)) == weights.ResolvedWeights(path=path, record=None)


def test_neither_a_model_nor_a_file():
    with pytest.raises(WeightsError, match="no model and no file") as caught:
        weights.resolve("vdvae-sr-4x")
    assert "'vdvae-sr-x4'" in caught.value.hint


def test_bundled_files_are_verified(tmp_path, monkeypatch, register):
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
