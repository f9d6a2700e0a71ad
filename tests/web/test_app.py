"""The web application, by its interface: what it draws, and all that it refuses."""

import asyncio
import io
import json
import re
import sys
import threading

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("starlette", reason="needs the extra serve")

from gated_model import Gate, loaded
from loaded import CPU
from starlette.testclient import TestClient

from vdsr_cli.errors import DeviceError
from vdsr_cli.images import Picture
from vdsr_cli.loading import load
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.services.serve import reduced_to
from vdsr_cli.web.app import create_app
from vdsr_cli.web.endpoint import Limits

LOCAL = {"base_url": "http://127.0.0.1:8000"}


class Broken(Gate):
    """A model whose device gives up."""

    def means(self, lr, noise, temperature, *, repeats=1):
        raise DeviceError("the device is lost", hint="try --device cpu")


def app_of(model, **limits):
    hosts = ("127.0.0.1",)
    return create_app([loaded(model)], CPU, Limits(**limits), hosts=hosts)


@pytest.fixture
def client(tiny_path):
    model = load(str(tiny_path), CPU, expects=Sampler).model
    app = create_app(
        [loaded(model), loaded(model, "other")],
        CPU,
        Limits(upload_bytes=2_000_000, pixels=30_000),
        hosts=("127.0.0.1",),
    )
    with TestClient(app, **LOCAL) as opened:
        yield opened


@pytest.fixture
def face(tmp_path, save_picture):
    return save_picture(tmp_path / "face.png", 16, 12).read_bytes()


def draw(client, body, **query):
    """The lines of an answer; the last has the result."""
    answer = client.post("/draw", params=query, content=body)
    assert answer.status_code == 200, answer.text
    return [json.loads(line) for line in answer.text.splitlines()]


def files_of(client, result):
    return {file["name"]: client.get(file["src"]) for file in result["files"]}


@pytest.mark.parametrize("temperature", [0.6, "0.2,8:0.9"])
def test_draws_what_the_command_line_draws(client, face, tmp_path, tiny_path, vdsr, temperature):
    (tmp_path / "face.png").write_bytes(face)
    vdsr(
        *("sample-diverse", tmp_path / "face.png", "-n", 3, "--seed", 7, "-t", temperature),
        *("--model", tiny_path, "--dtype", "float32", "--batch-size", 4),
    )
    last = draw(client, face, n=3, seed=7, temperature=temperature, name="face.png")[-1]
    assert last["status"] == "done"
    files = files_of(client, last["result"])
    kinds = ("mean", "s0", "s1", "s2", "std")
    assert sorted(files) == [f"face_x4_{kind}.png" for kind in kinds]
    for name, answer in files.items():
        assert answer.headers["content-type"] == "image/png"
        assert answer.content == (tmp_path / name).read_bytes(), name


def test_the_view_names_what_is_there(client, face):
    result = draw(client, face, n=2, name="<b>face.png")[-1]["result"]
    assert result["title"] == "<b>face.png"
    shown = [result["input"], *result["results"], *result["deviations"]]
    for entry in shown:
        with Image.open(io.BytesIO(client.get(entry["src"]).content)) as image:
            assert image.size == (result["width"], result["height"]) == (64, 48)
    assert [len(row) for row in result["figures"][0]["rows"]] == [2, 2, 2]


def test_one_sample_has_neither_mean_nor_deviation(client, face):
    result = draw(client, face, n=1)[-1]["result"]
    assert [entry["label"] for entry in result["results"]] == ["s0"]
    assert result["deviations"] == []


def test_depth_and_alpha_are_kept(client, tmp_path, save_picture):
    path = save_picture(tmp_path / "clear.png", mode="LA")
    with Image.open(path) as image:
        image.putalpha(image.getchannel("L"))
        image.save(path)
    result = draw(client, path.read_bytes(), n=2)[-1]["result"]
    for src in (result["input"]["src"], result["results"][0]["src"]):
        with Image.open(io.BytesIO(client.get(src).content)) as image:
            assert image.mode == "LA"


@pytest.mark.parametrize(
    ("query", "status", "message"),
    [
        ({"n": 0}, 400, "n 0 is outside 1 to 16"),
        ({"n": 17}, 400, "n 17 is outside 1 to 16"),
        ({"n": "many"}, 400, "n is no such number: 'many'"),
        ({"temperature": "nan"}, 400, "temperature nan is outside 0 to 2"),
        (
            {"temperature": "8:hot"},
            400,
            "temperature 8:hot is neither a number nor numbers by cell",
        ),
        ({"seed": "9" * 5000}, 400, f"seed is no such number: '{'9' * 40}'"),
        ({"model": "best"}, 400, "this server has no model 'best'"),
    ],
)
def test_refuses_impossible_wishes(client, face, query, status, message):
    answer = client.post("/draw", params=query, content=face)
    assert answer.status_code == status
    assert answer.json()["error"] == message
    assert answer.json()["exit_code"] == 2


@pytest.mark.parametrize("kind", ["empty", "text", "truncated", "large"])
def test_refuses_bad_pictures_as_the_command_line_does(
    client, face, tmp_path, vdsr, monkeypatch, kind
):
    """But for what a visitor can do about it, who has no options to give."""
    monkeypatch.setattr("vdsr_cli.web.endpoint._DECODED_PIXELS", 30_000)
    large = io.BytesIO()
    Image.new("L", (200, 200)).save(large, "PNG")
    bodies = {"empty": b"", "text": b"no picture", "truncated": face[:-60]}
    body = {**bodies, "large": large.getvalue()}[kind]
    path = tmp_path / "bad.png"
    path.write_bytes(body)
    answer = client.post("/draw", params={"name": str(path)}, content=body)
    assert answer.status_code == 422
    refusal = answer.json()
    ended = vdsr("sample-diverse", path, "--max-pixels", 30_000)
    assert ended.lines[0] == f"vdsr: {refusal['error']}"
    assert ended.code == refusal["exit_code"] == 3
    assert refusal["hint"] is None or refusal["hint"] in ended.err
    assert "--" not in answer.text and ("--max-pixels" in ended.err) == (kind == "large")


def test_a_large_picture_is_reduced_first(tiny_model, tmp_path, save_picture):
    body = save_picture(tmp_path / "a.png", 60, 40).read_bytes()
    with TestClient(app_of(tiny_model, pixels=500), **LOCAL) as client:
        result = draw(client, body, n=1)[-1]["result"]
    assert (result["width"], result["height"]) == (27 * 4, 18 * 4)
    assert "reduced from 60 x 40 to 27 x 18 to be drawn" in result["notes"]


@pytest.mark.parametrize("size", [(40, 30), (1000, 1), (1, 1000), (9, 9), (1, 1)])
@pytest.mark.parametrize("has_alpha", [False, True])
def test_a_picture_of_any_shape_is_reduced_to_at_most(size, has_alpha):
    generator = torch.Generator().manual_seed(0)
    rgba = (torch.rand(1, 4, *size, generator=generator) > 0.5).float()
    rgb, alpha = rgba[:, :3] * rgba[:, 3:], rgba[:, 3:] if has_alpha else None
    reduced = reduced_to(Picture(rgb=rgb, alpha=alpha), 100)
    assert 0.6 * min(100, size[0] * size[1]) <= reduced.height * reduced.width <= 100
    assert bool(reduced.notes) == (size[0] * size[1] > 100)
    most = 1.0 if reduced.alpha is None else reduced.alpha
    assert (reduced.rgb >= 0).all() and (reduced.rgb <= most).all()


def test_an_announced_upload_is_refused_unread(tiny_model):
    sent = call(app_of(tiny_model, upload_bytes=1000), [], headers={"content-length": "1001"})
    assert sent.status == 413
    assert sent.json()["error"] == "the upload has more than 1,000 bytes"
    assert sent.received == 0


def test_an_unannounced_upload_is_refused_while_it_comes(tiny_model):
    sent = call(app_of(tiny_model, upload_bytes=1000), [b"x" * 400] * 100)
    assert sent.status == 413
    assert sent.received == 3


def test_only_names_of_this_machine_are_answered(client):
    assert client.get("/", headers={"host": "127.0.0.1:1"}).status_code == 200
    for host in ("evil.example", "127.0.0.1.evil.example", "", "localhost"):
        assert client.get("/", headers={"host": host}).status_code == 400


def test_pages_of_other_sites_are_refused(client, face):
    for origin in ("http://evil.example", "null", "http://127.0.0.1:9"):
        answer = client.post("/draw", content=face, headers={"origin": origin})
        assert answer.status_code == 403
        assert "access-control-allow-origin" not in answer.headers
    for site in ("cross-site", "same-site", "x"):
        assert client.post("/draw", headers={"sec-fetch-site": site}).status_code == 403
    own = {"origin": LOCAL["base_url"], "sec-fetch-site": "same-origin"}
    assert client.post("/draw", content=face, headers=own).status_code == 200


@pytest.mark.parametrize("origin", ["http://[", "http://[::1", "//", "", "http://\xff", "["])
def test_an_origin_of_anything_is_foreign(client, origin):
    headers = {"origin": origin.encode("latin-1")}
    assert client.post("/draw", content=b"", headers=headers).status_code == 403


def test_whoever_has_not_the_token_finds_nothing(tiny_model, face):
    with TestClient(create_app([loaded(tiny_model)], CPU, Limits(), token="secret")) as client:
        for path in ("/", "/page.js", "/draw", "/secre/", "/secrets/"):
            assert client.get(path).status_code == 404
        assert client.post("/draw", content=face).status_code == 404
        assert client.get("/secret/").status_code == 200
        last = json.loads(client.post("/secret/draw?n=1", content=face).text.splitlines()[-1])
        assert client.get(f"/secret/{last['result']['files'][0]['src']}").status_code == 200


def test_each_request_is_logged_as_one_line(tiny_model, face):
    lines = []
    app = create_app([loaded(tiny_model)], CPU, Limits(), log=lines.append)
    with TestClient(app, **LOCAL) as client:
        client.get("/")
        client.post("/draw", params={"name": "holiday.png", "n": 0}, content=face)
        draw(client, face, n=1, name="holiday.png")
    assert [re.sub(r"[\d.]+ s$", "", line) for line in lines] == [
        *("testclient GET / 200 ", "testclient POST /draw 400 ", "testclient POST /draw 200 ")
    ]


def test_every_answer_has_the_headers(client):
    for path in ("/", "/page.js", "/results/none/s0.png", "/none"):
        headers = client.get(path).headers
        assert headers["content-security-policy"].startswith(
            "default-src 'none'; script-src 'self'"
        )
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["cache-control"] == "no-store"
    assert "unsafe" not in headers["content-security-policy"]


def test_the_page_loads_nothing_from_outside(client):
    page = client.get("/").text
    loaded = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert set(loaded) == {"data:,", "viewer.css", "page.css", "viewer.js", "page.js"}
    texts = [page, *(client.get(path).text for path in loaded if path != "data:,")]
    assert not any(re.search(r"https?://|@import|url\(|\sstyle=", text) for text in texts)


def test_a_failure_on_the_way_is_the_last_line(tiny_model, face):
    with TestClient(app_of(Broken(tiny_model)), **LOCAL) as client:
        last = draw(client, face)[-1]
    assert last["status"] == "failed"
    assert (last["error"], last["hint"]) == ("the device is lost", None), "a flag is no help here"
    assert last["exit_code"] == 5


@pytest.mark.parametrize(
    ("error", "code", "told"),
    [
        (torch.OutOfMemoryError("no room"), 5, "there is not enough memory"),
        (
            RuntimeError("no such kernel"),
            1,
            "an error of vdsr itself: RuntimeError: no such kernel",
        ),
    ],
)
def test_an_error_that_none_foresaw_is_the_last_line(client, face, monkeypatch, error, code, told):
    def fails(*arguments, **options):
        raise error

    monkeypatch.setattr("vdsr_cli.web.endpoint.draw", fails)
    last = draw(client, face)[-1]
    assert (last["status"], last["exit_code"]) == ("failed", code)
    assert told in last["error"]


def test_a_slow_upload_holds_no_place_and_ends(gate, face, monkeypatch):
    monkeypatch.setattr("vdsr_cli.web.endpoint._SILENT_SECONDS", 0.05)
    gate.is_open.set()
    app = app_of(gate, jobs=1)

    async def scenario():
        slow = [asyncio.create_task(call_later(app, [b"x", None])) for _ in range(4)]
        await asyncio.sleep(0)
        return await call_later(app, [face]), *[await sent for sent in slow]

    drawn, *slow = asyncio.run(scenario())
    app.state.queue.close()
    assert drawn.lines()[-1]["status"] == "done"
    assert [sent.status for sent in slow] == [422] * 4
    assert slow[0].json()["error"].startswith("the upload stood still for 0.05 s")


def test_another_machine_has_half_of_the_places(gate, face):
    app = app_of(gate, jobs=4)

    async def scenario():
        def ask(client):
            return asyncio.create_task(call_later(app, [face], client=client))

        first = [ask("10.0.0.1"), ask("10.0.0.1")]
        await reached(gate)
        await asyncio.sleep(0.01)
        third, other = await ask("10.0.0.1"), ask("10.0.0.2")
        gate.is_open.set()
        return third, await other, *[await sent for sent in first]

    third, *others = asyncio.run(scenario())
    app.state.queue.close()
    assert third.status == 503 and third.received == 0
    assert third.json()["error"] == "2 pictures of yours are in work already"
    assert [sent.lines()[-1]["status"] for sent in others] == ["done"] * 3


class Sent:
    """The answer of an application."""

    def __init__(self):
        self.status, self.headers, self.body, self.received = 0, {}, b"", 0

    def json(self):
        return json.loads(self.body)

    def lines(self):
        return [json.loads(line) for line in self.body.splitlines()]


async def call_later(app, chunks, *, headers=None, is_gone=None, until=None, client="127.0.0.1"):
    """One POST, its body in chunks, by the bare protocol; a chunk None never comes. Who sends it
    leaves when ``is_gone`` is set, or when the answer holds ``until``."""
    sent, left = Sent(), list(chunks)
    is_gone = is_gone or asyncio.Event()

    async def receive():
        if left:
            sent.received += 1
            if left[0] is None:
                await asyncio.Event().wait()
            return {"type": "http.request", "body": left.pop(0), "more_body": bool(left)}
        await is_gone.wait()
        return {"type": "http.disconnect"}

    async def send(message):
        if message["type"] == "http.response.start":
            sent.status = message["status"]
            sent.headers = {name.decode(): value.decode() for name, value in message["headers"]}
        else:
            sent.body += message["body"]
            if until is not None and until in sent.body:
                is_gone.set()

    named = {"host": "127.0.0.1", **(headers or {})}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0", "spec_version": "2.3"},
        "method": "POST",
        "path": "/draw",
        "client": (client, 5),
        "query_string": b"n=2",
        "headers": [(name.encode(), value.encode()) for name, value in named.items()],
    }
    await app(scope, receive, send)
    return sent


def call(*args, **kwargs):
    return asyncio.run(call_later(*args, **kwargs))


async def reached(gate):
    assert await asyncio.to_thread(gate.is_reached.wait, 30)


@pytest.fixture
def gate(tiny_model):
    made = Gate(tiny_model)
    yield made
    made.is_open.set()


@pytest.fixture
def wide(tmp_path, save_picture):
    """A picture of several batches."""
    return save_picture(tmp_path / "wide.png", 300, 100).read_bytes()


def test_a_full_queue_says_when_to_come_back(gate, face):
    app = app_of(gate, jobs=2)

    async def scenario():
        first = asyncio.create_task(call_later(app, [face]))
        await reached(gate)
        second = asyncio.create_task(call_later(app, [face]))
        await asyncio.sleep(0)
        third = await call_later(app, [face])
        gate.is_open.set()
        return await first, await second, third

    first, second, third = asyncio.run(scenario())
    app.state.queue.close()
    assert third.status == 503
    assert int(third.headers["retry-after"]) >= 1
    assert third.json()["error"] == "the queue is full"
    assert third.received == 0
    assert [sent.lines()[-1]["status"] for sent in (first, second)] == ["done", "done"]


def test_who_leaves_has_cancelled(gate, wide, face):
    app = app_of(gate, jobs=1)

    async def scenario():
        is_gone = asyncio.Event()
        first = asyncio.create_task(call_later(app, [wide], is_gone=is_gone))
        await reached(gate)
        is_gone.set()
        await first
        gate.is_open.set()
        return await first, await call_later(app, [face])

    first, second = asyncio.run(scenario())
    app.state.queue.close()
    assert "done" not in [line["status"] for line in first.lines()]
    assert second.lines()[-1]["status"] == "done"
    # One batch of the first picture, which was under way, and the one of the second.
    assert gate.calls == 2


def test_who_waits_is_told_and_may_leave(gate, face):
    app = app_of(gate)

    async def scenario():
        first = asyncio.create_task(call_later(app, [face]))
        await reached(gate)
        tasks = asyncio.all_tasks()
        waiting = await call_later(app, [face], until=b"waiting")
        await asyncio.sleep(0)
        assert asyncio.all_tasks() == tasks  # its picture is held by none of them
        gate.is_open.set()
        return await first, waiting

    first, second = asyncio.run(scenario())
    app.state.queue.close()
    assert {"status": "waiting", "ahead": 1} in second.lines()
    assert first.lines()[-1]["status"] == "done"
    assert gate.calls == 1


def test_the_end_of_the_server_ends_the_work(gate, wide):
    app = app_of(gate)

    async def scenario():
        first = asyncio.create_task(call_later(app, [wide]))
        await reached(gate)
        app.state.queue.cancel_all()
        gate.is_open.set()
        return await first

    last = asyncio.run(scenario()).lines()[-1]
    app.state.queue.close()
    assert last == {
        "status": "failed",
        "error": "the server was stopped",
        "hint": None,
        "exit_code": 5,
    }
    assert gate.calls == 1


WRITTEN: list[str] = []
IS_WATCHED = threading.Event()


def _watch(event, arguments):
    if event == "open" and IS_WATCHED.is_set():
        path, mode, flags = arguments
        if set(mode or "") & set("wax+") or flags & 3:
            WRITTEN.append(str(path))


def test_nothing_is_written_to_disk(client, face, tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (700, 700, 3), np.uint8)
    large = io.BytesIO()
    Image.fromarray(noise).save(large, "PNG")
    sys.addaudithook(_watch)
    IS_WATCHED.set()
    try:
        draw(client, face, n=2)
        draw(client, large.getvalue(), n=1)
        assert not WRITTEN
        (tmp_path / "seen").write_bytes(b"")
        assert len(WRITTEN) == 1
    finally:
        IS_WATCHED.clear()
