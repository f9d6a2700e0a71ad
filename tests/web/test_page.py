"""The page of ``vdsr serve`` in a real browser: a picture is dropped, drawn, compared, saved."""

import threading

import pytest

pytest.importorskip("starlette", reason="needs the extra serve")

from gated_model import Gate, loaded

from vdsr_cli.runtime import choose_runtime
from vdsr_cli.web.app import create_app
from vdsr_cli.web.endpoint import Limits
from vdsr_cli.web.server import address_of, listen, make_server, trusted_hosts


@pytest.fixture(scope="module")
def gate(tiny_model):
    made = Gate(tiny_model)
    made.is_open.set()
    return made


@pytest.fixture(scope="module")
def address(gate):
    """Where a server with that model listens."""
    runtime = choose_runtime("cpu", "float32")
    with listen("127.0.0.1", 0) as sock:
        app = create_app(
            [loaded(gate)], runtime, Limits(upload_bytes=50_000), hosts=trusted_hosts(sock)
        )
        server = make_server(app)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [sock]})
        thread.start()
        yield address_of(sock)
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def page(browser, address):
    browser.open(address)
    return browser


@pytest.fixture
def picture(tmp_path, save_picture):
    return save_picture(tmp_path / "a <b> face.png", 32, 24)


def text(page, selector):
    return page.run(f"return document.querySelector({selector!r}).textContent")


def test_a_dropped_picture_is_drawn_and_compared(page, picture):
    assert page.run("return $('go').disabled")
    page.drop("#drop", picture)
    page.wait("!$('go').disabled")
    page.keys("#n", "\ue015", "\ue015")  # arrow down, from 5
    page.keys("#go", "\ue007")  # return
    page.wait("!$('result').hidden")
    page.wait("[...document.images].every((image) => image.complete && image.naturalWidth)")
    assert text(page, "#title") == picture.name
    assert page.run("return document.activeElement.id") == "title"
    assert page.run("return [...$('left').options].map((option) => option.text)") == [
        *("input, bicubic", "s0", "s1", "s2", "mean")
    ]
    page.drag("#split", (0.5, 0.5), (0.2, 0.5))
    shown = page.run("return document.querySelector('#compare').style.getPropertyValue('--split')")
    assert float(shown.rstrip("%")) == pytest.approx(20, abs=4)
    assert page.run("return $('map-image').naturalWidth") == 128
    saved = page.run("return [...$('downloads').children].map((link) => link.download)")
    assert saved[0] == "a <b> face_x4_s0.png"
    assert [name.rpartition("_")[2] for name in saved[1:]] == [
        *("s1.png", "s2.png", "mean.png", "std.png")
    ]
    assert page.run("return $('all').download") == "a <b> face_x4.zip"
    assert page.log() == []


def test_a_second_picture_replaces_the_first(page, picture, tmp_path, save_picture):
    for chosen, samples in ((picture, 2), (save_picture(tmp_path / "other.png", 16, 16), 1)):
        page.drop("#drop", chosen)
        page.run(f"$('n').value = {samples}; $('go').click()")
        page.wait(f"$('title').textContent === {chosen.name!r}")
    assert page.run("return $('grid').childElementCount") == 2
    assert page.run("return $('sure').hidden")


def test_what_is_refused_is_said(page, tmp_path):
    for data, said in (
        (b"no picture", "a.png: it is not a picture of a known format"),
        (b"x" * 50_001, "a.png has more than 50,000 bytes"),
    ):
        (tmp_path / "a.png").write_bytes(data)
        page.drop("#drop", tmp_path / "a.png")
        page.run("$('go').click()")
        page.wait("$('error').textContent")
        assert text(page, "#error") == said


def test_a_picture_may_be_pasted(page):
    page.run(
        "const clipboardData = new DataTransfer();"
        "clipboardData.items.add(new File(['no picture'], 'pasted.png'));"
        "document.dispatchEvent(new ClipboardEvent('paste', {clipboardData, bubbles: true}))"
    )
    assert text(page, "#chosen") == "pasted.png, 1 kB"
    assert not page.run("return $('go').disabled")


def test_drawing_may_be_cancelled_and_begun_again(page, picture, gate):
    gate.is_open.clear()
    gate.is_reached.clear()
    page.drop("#drop", picture)
    page.run("$('go').click()")
    assert gate.is_reached.wait(30)
    page.run("$('stop').click()")
    page.wait("$('status').textContent === 'Cancelled'")
    assert page.run("return $('result').hidden && $('stop').hidden")
    gate.is_open.set()
    page.run("$('go').click()")
    page.wait("!$('result').hidden")


def test_fits_a_phone_and_every_control_has_a_name(page, picture):
    page.drop("#drop", picture)
    page.run("$('go').click()")
    page.wait("!$('result').hidden")
    with page.phone():
        width, inner = page.run("return [document.documentElement.scrollWidth, innerWidth]")
    assert width <= inner == 390
    nameless = page.run(
        "return [...document.querySelectorAll('input,select,button,progress,[tabindex]')].filter("
        "(e) => !(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map((e) => e.outerHTML)"
    )
    assert nameless == []
