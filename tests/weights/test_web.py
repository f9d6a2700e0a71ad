"""Downloads by address: hashes, resumption, failures."""

from pathlib import Path

import pytest
from hub_server import Fault
from weight_files import left_in, safetensors, sha256

from vdsr_cli import weights
from vdsr_cli.errors import WeightsError
from vdsr_cli.weights import cache, fetch
from vdsr_cli.weights.fetch import Download
from vdsr_cli.weights.sources import parse_source


def test_a_download_is_verified_and_cached(hub, home, register):
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


def test_a_direct_address_needs_its_hash(hub, home):
    data = safetensors()
    url = hub.put("m.safetensors", data)
    assert weights.resolve(f"{url}#sha256={sha256(data)}").path.read_bytes() == data
    with pytest.raises(WeightsError, match="without a hash"):
        weights.resolve(url)


def test_what_is_here_stays_until_another_file_is_verified(hub, home):
    data = safetensors()
    url = hub.put("m.safetensors", data)
    found = weights.resolve(f"{url}#sha256={sha256(data)}")
    with pytest.raises(WeightsError):
        weights.resolve(f"{url}#sha256={'0' * 64}")
    assert found.path.read_bytes() == data
    assert weights.resolve(f"{url}#sha256={sha256(data)}", offline=True).path == found.path


def test_a_broken_connection_is_taken_up_again(hub, home, register):
    data = safetensors()
    register(source=hub.put("m.safetensors", data), sha256=sha256(data))
    cut = Fault(kind="cut", at=60_000)
    hub.fail("/plain/m.safetensors", cut, Fault(kind="status", at=503), cut)
    assert weights.resolve("test/model").path.read_bytes() == data
    ranges = [seen.range for seen in hub.requests]
    assert ranges == [None, "bytes=60000-", "bytes=60000-", "bytes=120000-"]


def test_an_interrupted_run_is_gone_on_with(hub, home, register):
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


def test_a_replaced_file_is_not_mixed_with_the_old_one(hub, home, register):
    old, new = safetensors(1), safetensors(2)
    register(source=hub.put("m.safetensors", old), sha256=sha256(new))
    hub.fail("/plain/m.safetensors", *[Fault(kind="cut", at=50_000)] * 3)
    hub.fail("/plain/m.safetensors", *[Fault(kind="status", at=503)] * 4)
    with pytest.raises(WeightsError, match=r"150000 of \d+ bytes.* 503"):
        weights.resolve("test/model")
    hub.put("m.safetensors", new)
    assert weights.resolve("test/model").path.read_bytes() == new


def test_a_complete_part_costs_no_request(hub, home, register):
    data = safetensors()
    url = hub.put("m.safetensors", data)
    register(source=url, sha256=sha256(data))
    entry = cache.entry_for(parse_source(url))
    fetch.fetch(Download(url=url), entry.part)
    assert weights.resolve("test/model").path.read_bytes() == data
    assert len(hub.downloads) == 1


@pytest.mark.parametrize("fault", [Fault(kind="flip"), Fault(kind="short", at=1000)])
def test_other_bytes_are_refused_and_leave_nothing(hub, home, register, fault):
    data = safetensors()
    register(source=hub.put("m.safetensors", data), sha256=sha256(data))
    hub.fail("/plain/m.safetensors", fault)
    with pytest.raises(WeightsError, match="refused and removed") as caught:
        weights.resolve("test/model")
    assert caught.value.exit_code == 4
    assert left_in(home) == []
    assert weights.resolve("test/model").path.read_bytes() == data


def test_another_size_is_refused_before_the_bytes(hub, home, register):
    data = safetensors()
    url = hub.put("m.safetensors", data)
    register(source=url, sha256=sha256(data), bytes=len(data) - 1)
    with pytest.raises(WeightsError, match="not the"):
        weights.resolve("test/model")
    assert left_in(home) == []


def test_a_hostile_header_is_refused_and_leaves_nothing(hub, home, register):
    data = (2).to_bytes(8, "little") + b"{}"
    register(source=hub.put("m.safetensors", data), sha256=sha256(data))
    with pytest.raises(WeightsError, match="refused and removed"):
        weights.resolve("test/model")
    assert left_in(home) == []


def test_a_missing_file_is_not_asked_for_twice(hub, home, register):
    register(source=f"{hub.url}/plain/none.safetensors", sha256="0" * 64)
    with pytest.raises(WeightsError, match=r"no file at .* \(404\)"):
        weights.resolve("test/model")
    assert len(hub.downloads) == 1
    assert left_in(home) == []


def test_a_server_that_hangs_is_given_up(hub, home):
    url = hub.put("m.safetensors", safetensors())
    hub.fail("/plain/m.safetensors", *[Fault(kind="hang")] * 2)
    patience = fetch.Patience(timeout_s=0.3, tries=2, backoff_s=0.01)
    with pytest.raises(WeightsError, match="timed out"):
        fetch.fetch(Download(url=url), home / "x.part", patience=patience)
    assert left_in(home) == []


def test_a_hang_midway_is_got_over(hub, home):
    data = safetensors()
    url = hub.put("m.safetensors", data)
    hub.fail("/plain/m.safetensors", Fault(kind="hang", at=70_000))
    patience = fetch.Patience(timeout_s=0.3, tries=2, backoff_s=0.01)
    found = fetch.fetch(Download(url=url), home / "x.part", patience=patience)
    assert (found.sha256, found.size_bytes) == (sha256(data), len(data))
    assert hub.requests[-1].range == "bytes=70000-"


def test_no_server_is_one_line(home):
    with pytest.raises(WeightsError, match="refused"):
        fetch.fetch(Download(url="http://127.0.0.1:9/f"), home / "x.part")
    assert left_in(home) == []


def test_a_redirect_to_plain_http_is_not_followed(hub, home):
    hub.redirects["/plain/a"] = "http://example.org/f"
    with pytest.raises(WeightsError, match="https only"):
        fetch.fetch(Download(url=f"{hub.url}/plain/a"), home / "x.part")
    hub.redirects["/plain/a"] = hub.put("m", b"abc")
    assert fetch.fetch(Download(url=f"{hub.url}/plain/a"), home / "x.part").size_bytes == 3


def test_a_damaged_cache_heals_or_says_so(hub, home, register):
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


def test_a_newer_table_fetches_the_newer_file(hub, home, register):
    for seed in (1, 2):
        data = safetensors(seed)
        register(source=hub.put("m.safetensors", data), sha256=sha256(data))
        assert weights.resolve("test/model").path.read_bytes() == data


def test_a_cache_that_cannot_be_written_is_one_line(hub, tmp_path, home, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("VDSR_HOME", str(tmp_path / "file" / "cache"))
    data = safetensors()
    with pytest.raises(WeightsError, match="cannot use the cache") as caught:
        weights.resolve(f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}")
    assert "VDSR_HOME" in caught.value.hint


def test_a_full_disk_keeps_what_can_be_gone_on_with(hub, home, run_cli, vdsr_weights):
    data = safetensors()
    address = f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}"
    code, out, err = run_cli("download", address, limit_bytes=100_000)
    assert (code, out) == (4, "")
    assert "File too large" in err and "free some space" in err
    assert [path.stat().st_size for path in home.rglob("*.part")] == [100_000]
    code, out, _ = vdsr_weights("download", address)
    assert code == 0 and Path(out).read_bytes() == data
    assert hub.requests[-1].range == "bytes=100000-"


def test_two_processes_at_once_make_one_download(hub, home, start_cli):
    data = safetensors(numbers=2_000_000)
    address = f"{hub.put('m.safetensors', data)}#sha256={sha256(data)}"
    both = [start_cli("download", address) for _ in range(2)]
    paths = {process.communicate(timeout=60)[0].strip() for process in both}
    assert [process.returncode for process in both] == [0, 0]
    (path,) = paths
    assert Path(path).read_bytes() == data
    assert len(hub.downloads) == 1
