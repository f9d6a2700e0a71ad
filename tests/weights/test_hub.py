"""Files of the Hugging Face hub, in the hub's own cache."""

import time
from pathlib import Path

import pytest
from hub_server import COMMIT, Fault
from published_vdvae import pickled, published_state
from weight_files import left_in, safetensors, sha256

from vdsr_cli import weights


@pytest.fixture
def publish(hub, repo):
    """Put a large file on the hub; return its pinned address."""
    return lambda data: hub.publish(repo, "model.safetensors", data)


def test_a_pinned_file_is_fetched_once(hub, repo, hub_cache, publish, run_cli):
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


def test_a_branch_is_asked_about_but_not_fetched_again(hub, publish, vdsr_weights):
    data = safetensors()
    address = publish(data).replace(f"@{COMMIT}", "")
    outs = {vdsr_weights("download", address)[1] for _ in range(2)}
    assert len(outs) == 1
    assert len(hub.downloads) == 1


def test_a_broken_connection_is_taken_up_again(hub, publish, vdsr_weights):
    data = safetensors()
    address = publish(data)
    hub.fail(hub.cdn_path(data), Fault(kind="cut", at=60_000))
    code, out, err = vdsr_weights("download", address)
    assert code == 0, err
    assert Path(out).read_bytes() == data
    assert len(hub.downloads) == 2


def test_a_killed_run_is_begun_again(hub, home, publish, vdsr_weights, start_cli):
    data = safetensors()
    address = publish(data)
    hub.fail(hub.cdn_path(data), Fault(kind="hang", at=60_000))
    process = start_cli("download", address, HF_HUB_DOWNLOAD_TIMEOUT="30")
    while not hub.downloads:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.communicate(timeout=60)
    code, out, err = vdsr_weights("download", address)
    assert code == 0, err
    assert Path(out).read_bytes() == data
    assert left_in(home) == []


def test_a_server_out_of_breath_and_a_hang_are_got_over(hub, publish, vdsr_weights):
    data = safetensors()
    address = publish(data)
    hub.fail(hub.cdn_path(data), Fault(kind="status", at=500), Fault(kind="hang", at=500))
    code, out, err = vdsr_weights("download", address)
    assert code == 0, err
    assert Path(out).read_bytes() == data


@pytest.mark.parametrize(
    ("fault", "problem"),
    [(Fault(kind="flip"), "expected"), (Fault(kind="short", at=999), "has size 999")],
)
def test_other_bytes_are_refused_and_leave_nothing(
    hub, home, hub_cache, publish, vdsr_weights, fault, problem
):
    data = safetensors()
    address = publish(data)
    hub.fail(hub.cdn_path(data), fault)
    code, out, err = vdsr_weights("download", address)
    assert (code, out) == (4, "")
    assert problem in err
    assert "Traceback" not in err
    assert left_in(hub_cache) == left_in(home) == []


def test_a_full_cache_is_not_blamed_on_the_file(hub, repo, run_python):
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


def test_a_small_file_kept_in_git_comes_too(hub, repo, vdsr_weights):
    data = safetensors(numbers=10)
    address = hub.publish(repo, "model.safetensors", data, is_large=False)
    code, out, err = vdsr_weights("download", address)
    assert code == 0, err
    assert Path(out).read_bytes() == data


def test_a_hostile_header_is_refused_and_leaves_nothing(publish, hub_cache, vdsr_weights):
    address = publish((1 << 60).to_bytes(8, "little") + b"{}")
    code, _, err = vdsr_weights("download", address)
    assert code == 4 and "not a sound safetensors file" in err
    assert left_in(hub_cache) == []


def test_a_damaged_cache_heals(publish, vdsr_weights):
    data = safetensors()
    address = publish(data)
    _, out, _ = vdsr_weights("download", address)
    Path(out).write_bytes(data[:-1])
    assert vdsr_weights("download", address)[:2] == (0, out)
    assert Path(out).read_bytes() == data


def test_offline_without_a_cache_says_what_to_do(hub, publish, run_cli):
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
def test_what_is_not_there_is_named(hub, repo, publish, vdsr_weights, code, problem):
    address = publish(safetensors())
    hub.errors[f"/{repo}/resolve/{COMMIT}/model.safetensors"] = code
    exit_code, _, err = vdsr_weights("download", address)
    assert exit_code == 4
    assert problem in err and "Traceback" not in err


def test_no_hub_is_said_soon(run_cli):
    code, _, err = run_cli(
        "download", f"hf://o/r@{COMMIT}/a.safetensors", HF_ENDPOINT="http://127.0.0.1:9"
    )
    assert code == 4
    assert "cannot be fetched" in err and "HF_ENDPOINT" in err


def test_a_cache_that_cannot_be_written_is_one_line(publish, tmp_path, run_cli):
    (tmp_path / "file").touch()
    address = publish(safetensors())
    code, _, err = run_cli("download", address, HF_HOME=str(tmp_path / "file" / "hf"))
    assert code == 4
    assert "HF_HOME" in err and "Traceback" not in err


def test_two_processes_at_once_make_one_good_file(publish, start_cli):
    data = safetensors(numbers=1_000_000)
    address = publish(data)
    both = [start_cli("download", address) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (path,) = paths
    assert Path(path).read_bytes() == data


def test_a_row_with_another_hash_is_refused_and_leaves_nothing(hub_cache, publish, run_python):
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
    assert left_in(hub_cache) == []


def test_a_published_pickle_of_the_hub_is_converted(hub, home, repo, run_python):
    data = pickled(published_state(prefix="module."))
    address = hub.publish(repo, "ema.th", data)
    out = run_python(
        f"""
import sys
import vdsr_cli.models.vdvae_config as configs
import vdsr_cli.weights.store as module
from vdsr_cli.weights import WeightsRecord
sys.path.insert(0, {str(Path(__file__).parents[1])!r})
from published_vdvae import TABLE
configs.PUBLISHED = TABLE
record = WeightsRecord(name="m", architecture="openai-vdvae", summary="s", licence="MIT",
                       config="ffhq256", source={address!r}, sha256={sha256(data)!r})
module.load_records = lambda: {{"m": record}}
told = []
for offline in (False, True):
    found = module.resolve("m", offline=offline, progress=lambda *bytes: told.append(bytes))
    print(found.path, module.check(record))
print(told[-1])
"""
    )
    first, second, told = out.splitlines()
    assert told == f"({len(data)}, {len(data)})"
    assert first == second and first.endswith(" ok")
    path = Path(first.removesuffix(" ok"))
    assert path.is_relative_to(home)
    assert set(weights.read_safetensors(path).state) == set(published_state())
    assert len(hub.downloads) == 1
