"""`--model auto` at the command line: the default, its line on stderr, its field of --json."""

import importlib.util
import json
from pathlib import Path

import pytest
from PIL import Image

from vdsr_cli.cli.upscale import MANIFEST_NAME
from vdsr_cli.loading import LoadedModel

STREET = Path(__file__).parents[1] / "data" / "street.png"
SMALL = ("--tile", "16", "--overlap", "4", "--dtype", "float32")


@pytest.fixture(autouse=True)
def pictures(tmp_path, monkeypatch):
    """``shots/clean.png`` and ``shots/web.jpg`` of 48x32 pixels in an empty folder."""
    monkeypatch.chdir(tmp_path)
    Path("shots").mkdir()
    with Image.open(STREET) as street:
        small = street.convert("RGB").crop((100, 100, 148, 132))
    small.save("shots/clean.png")
    small.save("shots/web.jpg", quality=55)


@pytest.fixture(autouse=True)
def names(monkeypatch, tiny_model):
    """The names of the models that were loaded: each is the tests' model here."""
    loaded = []

    def load(name, runtime, **_):
        loaded.append(name)
        is_real = name.endswith("-real")
        card = {"degradation": "real" if is_real else "bicubic"}
        return LoadedModel(name=name, model=tiny_model, record=None, card=card, parameters=1)

    for module in ("batch.processes", "loading"):  # the former holds the real one once imported
        monkeypatch.setattr(f"vdsr_cli.{module}.load", load)
    return loaded


WEB = "vdsr: shots/web.jpg: vdvae-sr-x4-real, because of JPEG at quality 55"


def test_a_folder_gets_a_model_a_picture(vdsr, names):
    ended = vdsr("upscale", "shots", "-o", "out", "--json", *SMALL)
    assert ended.code == 0
    assert ended.lines[0].startswith("vdsr: shots/clean.png: vdvae-sr-x4, because of ")
    assert ended.lines[1:] == [WEB, "vdsr: 2 done"]
    clean, web = map(json.loads, ended.out.splitlines())
    assert (clean["model"], clean["consistency"]) == ("vdvae-sr-x4", True)
    assert (web["model"], web["consistency"]) == ("vdvae-sr-x4-real", False)
    assert web["model_reason"] == "JPEG at quality 55"
    assert names == ["vdvae-sr-x4", "vdvae-sr-x4-real"]
    records = map(json.loads, Path("out", MANIFEST_NAME).read_text().splitlines())
    assert [record["model"] for record in records] == ["vdvae-sr-x4", "vdvae-sr-x4-real"]


def test_a_named_model_takes_every_picture_and_gives_no_reason(vdsr, names):
    ended = vdsr("upscale", "shots", "-o", "out", "--json", "-m", "vdvae-sr-x4", *SMALL)
    assert (ended.code, ended.lines, names) == (0, ["vdsr: 2 done"], ["vdvae-sr-x4"])
    results = [json.loads(line) for line in ended.out.splitlines()]
    assert all(r["model"] == "vdvae-sr-x4" and "model_reason" not in r for r in results)


def test_it_may_be_named_and_be_quiet(vdsr):
    assert vdsr("upscale", "shots/web.jpg", "-m", "auto", *SMALL).lines == [WEB]
    ended = vdsr("upscale", "shots/web.jpg", "-m", "auto", "-q", "--overwrite", *SMALL)
    assert (ended.code, ended.err, ended.out) == (0, "", b"")


def test_what_no_model_takes_is_refused_before_any_picture(vdsr, names):
    ended = vdsr("upscale", "shots", "-o", "out", "--tile", "13")
    assert ended.code == 2 and not Path("out").exists()
    assert names == ["vdvae-sr-x4"]


def test_sample_diverse_says_which_model_and_why(vdsr):
    ended = vdsr("sample-diverse", "shots/web.jpg", "-n", 1, "--json", *SMALL)
    assert (ended.code, ended.lines) == (0, [WEB])
    result = json.loads(ended.out)
    assert result["model"] == "vdvae-sr-x4-real"
    assert result["model_reason"] == "JPEG at quality 55"
    assert result["consistency"] is False
    named = vdsr("sample-diverse", "shots/web.jpg", "-n", 1, "-m", "mine", "--overwrite", *SMALL)
    assert (named.code, named.err) == (0, "")


@pytest.mark.skipif(importlib.util.find_spec("starlette") is None, reason="needs the extra serve")
@pytest.mark.parametrize("options", [[], ["--model", "auto"]])
def test_serve_looks_at_each_upload(vdsr, monkeypatch, options):
    from starlette.testclient import TestClient

    answers = []

    class Visited:
        """A server that has one visitor with two pictures, and is ended then."""

        def __init__(self, app):
            self.app = app

        def run(self, sockets):
            with TestClient(self.app, base_url="http://127.0.0.1") as client:
                for path in ("shots/clean.png", "shots/web.jpg"):
                    body = Path(path).read_bytes()
                    answer = client.post("/draw", params={"n": 1}, content=body)
                    answers.append(json.loads(answer.text.splitlines()[-1])["result"]["facts"])

    monkeypatch.setattr("vdsr_cli.web.server.make_server", Visited)
    assert vdsr("serve", "--port", 0, "--dtype", "float32", *options).code == 0
    clean, web = map(dict, answers)
    assert clean["model"] == "cvdvae-x4"
    assert (web["model"], web["because of"]) == ("vdvae-sr-x4-real", "JPEG at quality 55")
