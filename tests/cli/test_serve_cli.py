"""``vdsr serve`` at the command line."""

import importlib.util
import json
import signal
import socket
import urllib.request
from queue import Queue
from threading import current_thread, main_thread

import pytest

from vdsr_cli.cli import serve as command
from vdsr_cli.errors import UsageError

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("starlette") is None, reason="needs the extra serve"
)


def test_without_its_extra_it_says_how_to_get_it(vdsr, monkeypatch):
    monkeypatch.setattr(command, "find_spec", lambda name: None)
    ended = vdsr("serve")
    assert ended.code == 2
    assert ended.lines == ["vdsr: vdsr serve needs its extra: pip install 'vdsr-cli[serve]'"]


@needs_extra
def test_serves_until_it_is_interrupted(start_vdsr, tiny_path, tmp_path, save_picture):
    child = start_vdsr("serve", "--port", 0, "--model", tiny_path, "--dtype", "float32")
    address = child.stdout.readline().decode().strip()
    assert address.startswith("http://127.0.0.1:")
    body = save_picture(tmp_path / "a.png").read_bytes()
    with urllib.request.urlopen(f"{address}draw?n=2", data=body, timeout=60) as answer:
        last = json.loads(answer.read().splitlines()[-1])
    assert last["status"] == "done"
    with urllib.request.urlopen(address + last["result"]["files"][0]["src"], timeout=60) as answer:
        assert answer.read(4) == b"\x89PNG"
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 130
    lines = err.decode().splitlines()
    assert [line.split()[2:6] for line in lines] == [
        ["127.0.0.1", "POST", "/draw", "200"],
        ["127.0.0.1", "GET", "/s0.png", "200"],
    ]


class Interrupted:
    """A server whose visitor presses Ctrl-C at once."""

    def __init__(self, app):
        self.app = app

    def run(self, sockets):
        raise KeyboardInterrupt


@needs_extra
@pytest.mark.parametrize(("host", "warnings"), [("127.0.0.1", 0), ("0.0.0.0", 1)])
def test_warns_where_others_can_reach_it(vdsr, monkeypatch, tiny_path, host, warnings):
    monkeypatch.setattr("vdsr_cli.web.server.make_server", Interrupted)
    ended = vdsr("serve", "--host", host, "--port", 0, "--model", tiny_path)
    assert ended.code == 130
    assert len(ended.lines) == warnings
    path = ended.out.decode().strip().split("/", 3)[3]
    assert len(path.rstrip("/")) == (22 if warnings else 0)
    assert all(line.startswith(f"vdsr: warning: listening on {host}") for line in ended.lines)


@needs_extra
def test_open_shows_the_page_that_it_prints(vdsr, monkeypatch, tiny_path):
    """Some browsers run in the terminal until they are left: the server does not wait for them."""
    opened = Queue()
    monkeypatch.setattr("vdsr_cli.web.server.make_server", Interrupted)
    monkeypatch.setattr(
        "webbrowser.open", lambda address: opened.put((address, current_thread() is main_thread()))
    )
    ended = vdsr("serve", "--open", "--port", 0, "--model", tiny_path)
    assert ended.code == 130
    assert opened.get(timeout=60) == (ended.out.decode().strip(), False)
    assert vdsr("serve", "--port", 0, "--model", tiny_path).code == 130
    assert opened.empty()


@needs_extra
def test_offers_every_bundled_model_that_upscales(vdsr, monkeypatch):
    offered = []
    monkeypatch.setattr("vdsr_cli.web.server.make_server", Interrupted)
    monkeypatch.setattr(
        "vdsr_cli.web.app.create_app", lambda models, *_, **__: offered.extend(models)
    )
    assert vdsr("serve", "--port", 0).code == 130
    names = [loaded.name for loaded in offered]
    assert names[:2] == ["auto", "cvdvae-x4"]
    assert {"vdvae-sr-x4-tiny", "vdvae-sr-x4"} <= set(names)
    assert not {"vdvae-x4-prior", "cnn-vae-x2"} & set(names)


@needs_extra
def test_models_arrive_under_a_bar_before_it_listens_and_priors_never(vdsr, monkeypatch):
    brought = []

    def listen(host, port):
        raise UsageError("listens")

    monkeypatch.setattr("vdsr_cli.web.server.listen", listen)
    monkeypatch.setattr(command, "bring", lambda *models, quiet: brought.append((models, quiet)))
    asked = ("serve", "-m", "hf://owner/repo/a.safetensors")
    assert vdsr(*asked, "-m", "auto").lines == ["vdsr: listens"]
    assert brought == [(("hf://owner/repo/a.safetensors", "auto"), False)]
    assert "does not upscale by itself" in vdsr(*asked, "-m", "openai/ffhq256").lines[0]
    assert len(brought) == 1


@needs_extra
def test_a_taken_port_is_one_line(vdsr):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = vdsr("serve", "--port", port)
    assert ended.code == 2
    assert ended.lines[0].startswith(f"vdsr: cannot listen on 127.0.0.1, port {port}: ")


@needs_extra
@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["--host", "no.such.host.invalid"], 2),
        (["--model", "no-such-model"], 4),
        (["--batch-size", "none"], 2),
        (["--queue", "0"], 2),
        (["--port", "70000"], 2),
        *((["--max-upload", number], 2) for number in ("inf", "nan", "1e308")),
        *((["--keep", number], 2) for number in ("inf", "nan", "1e308")),
        *((["--host", host], 2) for host in ("", ".", "x" * 300, "a..b", "\ud800", "fe80::1%lo")),
    ],
)
def test_refusals(vdsr, arguments, code):
    assert vdsr("serve", "--port", 0, *arguments).code == code
