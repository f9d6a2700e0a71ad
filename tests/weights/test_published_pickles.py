"""OpenAI's published pickles, from a server to a file."""

import pytest
from hub_server import COMMIT
from published_vdvae import pickled, published_state
from weight_files import Marker, left_in

from vdsr_cli import weights
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import WeightsRecord
from vdsr_cli.weights.sources import PUBLISHER, mirrored

pytestmark = pytest.mark.usefixtures("small_published")


@pytest.fixture
def publish(hub, register):
    """Publish a state dict as OpenAI did: a pickle, and no hash."""

    def put(data: bytes) -> WeightsRecord:
        url = hub.put("ffhq256-iter-1700000-model-ema.th", data)
        return register(
            source=url, architecture="openai-vdvae", config="ffhq256", trust_on_first_use=True
        )

    return put


def test_they_are_kept_as_safetensors(hub, home, publish):
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


def test_the_first_download_is_trusted_ever_after(hub, home, publish):
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


def test_code_is_refused_and_leaves_nothing(hub, home, tmp_path, publish):
    publish(pickled({"a": Marker(tmp_path / "marker")}))
    with pytest.raises(WeightsError, match="would run code"):
        weights.resolve("test/model")
    assert left_in(home) == []
    assert not (tmp_path / "marker").exists()


def test_a_mirror_stands_for_the_publisher(hub, home, register, monkeypatch):
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
def test_no_other_address_is_mirrored(monkeypatch, mirror):
    monkeypatch.setenv("VDSR_OPENAI_ENDPOINT", mirror)
    for url in ("https://host.org/a.th", f"{PUBLISHER}.host.org/a.th"):
        assert mirrored(url) == url
    assert mirrored(f"{PUBLISHER}/a.th") == f"{mirror or PUBLISHER}/a.th"


def test_without_a_row_a_pickle_is_not_fetched(hub, home, tmp_path):
    address = f"{hub.put('a.th', b'')}#sha256={'0' * 64}"
    for text in (address, f"hf://o/r@{COMMIT}/a.bin"):
        with pytest.raises(WeightsError, match="is a pickle") as caught:
            weights.resolve(text)
        assert "vdsr weights convert" in caught.value.hint
    assert hub.requests == []
