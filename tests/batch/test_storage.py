"""Pictures in a store: an S3 server on this machine where moto is installed, memory elsewhere."""

import json
import os
import uuid
from pathlib import Path

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vdsr_cli.batch import storage
from vdsr_cli.batch.store_listing import _with_siblings
from vdsr_cli.errors import UsageError, VdsrError

STEMS = st.text("ab._/", max_size=6).map(lambda text: "a" + text.replace("/", "/b"))
NAMES = st.sets(STEMS.map(lambda stem: stem + ".png"))
TWINS = st.sets(STEMS.map(lambda stem: stem + ".jpg"))


def stem_of(name: str) -> str:
    return name.rpartition(".")[0]


@given(NAMES, TWINS)
def test_siblings_are_found_in_one_pass(names, twins):
    everything = sorted(names | twins)
    found = dict(_with_siblings(everything))
    assert len(found) == len(everything)
    for name in everything:
        assert found[name] == {other for other in everything if stem_of(other) == stem_of(name)}


@pytest.fixture(autouse=True)
def surroundings(tmp_path, monkeypatch):
    monkeypatch.setenv("VDSR_HOME", str(tmp_path.parent / "home"))
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def s3_server():
    """The address of an S3 server of this machine."""
    pytest.importorskip("s3fs", reason="needs vdsr-cli[s3]")
    server = pytest.importorskip("moto.server", reason="needs moto[server]")
    started = server.ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    started.start()
    _, port = started.get_host_and_port()
    yield f"http://127.0.0.1:{port}"
    started.stop()


@pytest.fixture(params=["memory", "s3"])
def bucket(request, monkeypatch):
    """The URL of an empty place in a store."""
    name = uuid.uuid4().hex
    if request.param == "s3":
        monkeypatch.setenv("AWS_ENDPOINT_URL", request.getfixturevalue("s3_server"))
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        for variable in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
            monkeypatch.setenv(variable, "none")
        fsspec.filesystem("s3").mkdir(name)
    return f"{request.param}://{name}"


@pytest.fixture
def upscale(vdsr, tiny_path):
    return lambda *arguments: vdsr("upscale", "--model", tiny_path, *arguments)


def keys(url: str) -> list[str]:
    files, place = fsspec.core.url_to_fs(url)
    files.invalidate_cache()
    return sorted(name.removeprefix(f"{place}/") for name in files.find(place))


def put_pictures(url: str, save_picture) -> None:
    names = ["a.png", "a.jpg", "b.png", "sub/c.png", ".hidden.png", "notes.txt"]
    for seed, name in enumerate(names):
        files, place = fsspec.core.url_to_fs(f"{url}/{name}")
        picture = save_picture(Path(f"picture.{name[-3:].replace('txt', 'png')}"), seed=seed)
        files.makedirs(os.path.dirname(place), exist_ok=True)
        files.pipe_file(place, picture.read_bytes())
    files.pipe_file(f"{os.path.dirname(place)}/bad.png", b"junk")


def test_from_a_store_to_a_store(upscale, bucket, save_picture):
    put_pictures(f"{bucket}/in", save_picture)
    options = ("-r", f"{bucket}/in", "-o", f"{bucket}/out/", "--manifest", "m.jsonl", "--json")
    ended = upscale(*options)
    assert ended.code == 3, ended.err
    outputs = ["a_jpg_x4.png", "a_png_x4.png", "b_x4.png", "sub/c_x4.png"]
    assert keys(f"{bucket}/out") == outputs
    rows = {row["input"]: row for row in map(json.loads, ended.out.splitlines())}
    bad = rows.pop(f"{bucket}/in/bad.png")
    assert bad["error"].startswith(f"{bucket}/in/bad.png: ") and bad["exit_code"] == 3
    assert sorted(row["output"] for row in rows.values()) == [f"{bucket}/out/{o}" for o in outputs]
    records = [json.loads(line) for line in Path("m.jsonl").read_text().splitlines()]
    assert {record["output"] for record in records} == {
        f"{bucket}/out/{name}" for name in [*outputs, "bad_x4.png"]
    }
    again = upscale(*options, "--skip-existing")
    statuses = [json.loads(line)["status"] for line in again.out.splitlines()]
    assert sorted(statuses) == ["failed", *["skipped"] * 4]
    known = Path("m.jsonl").read_bytes()
    assert upscale(*options).code == 6
    added = Path("m.jsonl").read_bytes().removeprefix(known).splitlines()
    assert [json.loads(line)["input"] for line in added] == [f"{bucket}/in/bad.png"], "as tried"


@pytest.mark.parametrize("options", [(), ("--skip-existing",), ("--overwrite",)])
def test_an_object_that_appears_meanwhile(upscale, bucket, save_picture, monkeypatch, options):
    """It is kept unless it may be replaced: of two runs the store takes one, and no other file."""
    Path("shots").mkdir()
    save_picture(Path("shots/a.png"))
    real, url = storage.put, f"{bucket}/out/a_x4.png"

    def put(path, address, **how):
        files, place = fsspec.core.url_to_fs(url)
        files.makedirs(os.path.dirname(place), exist_ok=True)
        files.pipe_file(place, b"another")
        real(path, address, **how)

    monkeypatch.setattr("vdsr_cli.batch.processes.put", put)
    ended = upscale("shots", "-o", f"{bucket}/out", "--json", *options)
    with fsspec.open(url) as stored:
        is_kept = stored.read() == b"another"
    row = json.loads(ended.out)
    if options == ("--overwrite",):
        assert (ended.code, row["status"], is_kept) == (0, "done", False)
    elif options:
        assert (ended.code, row["status"], is_kept) == (0, "skipped", True)
    else:
        assert (ended.code, row["status"], is_kept) == (6, "failed", True)
        assert "appeared meanwhile" in row["error"]
    assert keys(f"{bucket}/out") == ["a_x4.png"]


def test_a_store_holds_the_bytes_of_a_folder(upscale, bucket, save_picture):
    Path("shots").mkdir()
    save_picture(Path("shots/a.png"))
    assert upscale("shots", "-o", f"{bucket}/out").code == 0
    assert upscale("shots", "-o", "out").code == 0
    with fsspec.open(f"{bucket}/out/a_x4.png") as stored:
        assert stored.read() == Path("out/a_x4.png").read_bytes()
    assert upscale(f"{bucket}/out", "-o", "twice").code == 0
    assert Path("twice/a_x4_x4.png").exists()


def test_the_url_of_a_picture_stands_for_it(upscale, bucket, save_picture):
    put_pictures(f"{bucket}/in", save_picture)
    ended = upscale(f"{bucket}/in/a.png", "-o", "out/t0.8", "--json")
    assert json.loads(ended.out)["output"] == "out/t0.8/a_x4.png"
    assert os.listdir("out/t0.8") == ["a_x4.png"]
    assert upscale(f"{bucket}/in/a.png", "-o", f"{bucket}/out").code == 0
    assert keys(f"{bucket}/out") == ["a_x4.png"]
    ended = upscale(f"{bucket}/in/a.png", "-o", f"{bucket}/in", "--suffix=", "--overwrite")
    assert ended.code == 2 and "is the input" in ended.lines[0]
    assert upscale(f"{bucket}/in/none.png", "-o", "out").code == 3


class ClientError(Exception):
    """An error that is of no family, as those of some stores' clients."""


@pytest.mark.parametrize(
    ("error", "told"),
    [
        (ClientError("503, try later"), "cannot be read: 503, try later$"),
        (TimeoutError(), "cannot be read: TimeoutError$"),
        (OSError(28, "whatever"), "cannot be read: no space left"),
        (UsageError("nonsense"), "^nonsense$"),
    ],
)
def test_any_error_of_a_store_is_one_line(monkeypatch, tmp_path, error, told):
    def open_store(address):
        raise error

    monkeypatch.setattr(storage, "open_store", open_store)
    with pytest.raises(VdsrError, match=told):
        storage.fetch("gs://bucket/a.png", tmp_path)


def test_outputs_below_the_inputs_are_left_out(upscale, bucket, save_picture):
    put_pictures(bucket, save_picture)
    for _ in range(2):
        upscale("-r", bucket, "-o", f"{bucket}/large", "--skip-existing")
    assert [key for key in keys(bucket) if "_x4_x4" in key] == []
    assert len([key for key in keys(bucket) if key.startswith("large/")]) == 4


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["{}/none", "-o", "out"], 3, "no pictures"),
        (["{}/in"], 2, "goes alone"),
        (["{}/in", "{}/more", "-o", "out"], 2, "goes alone"),
        (["{}/in", "-o", "{}/in"], 2, "is the input"),
        (["nonsense://in", "-o", "out"], 2, "nonsense"),
    ],
)
def test_what_cannot_be(upscale, bucket, arguments, code, words):
    ended = upscale(*(argument.format(bucket) for argument in arguments))
    assert ended.code == code and words in ended.lines[0], ended
    assert len(ended.lines) <= 2 and not Path("out").exists()


def test_a_bucket_that_is_not_there(upscale, bucket, save_picture):
    if bucket.startswith("memory"):
        pytest.skip("memory has no buckets")
    save_picture(Path("a.png"))
    assert upscale("a.png", "-o", "s3://elsewhere/out").code == 6
    ended = upscale("s3://elsewhere/in", "-o", "out")
    assert ended.code == 3 and "bucket does not exist" in ended.lines[0]
