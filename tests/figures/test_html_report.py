"""The HTML page: self-contained, small, and alive in a real browser where there is one."""

import json
import re

import numpy as np
import pytest

from vdsr_cli.figures.contact_sheet import Entry
from vdsr_cli.figures.html_report import PAGE_BYTES, Figures, Report, render, write_report


def noisy(height, width, seed=0):
    """A picture that does not compress well: smooth shapes and grain."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[:height, :width]
    smooth = 128 + 60 * np.sin(rows / 17 + seed) * np.cos(columns / 23)
    grain = rng.normal(0, 12, (height, width, 3))
    return (smooth[..., None] + grain).clip(0, 255).astype(np.uint8)


def report_of(height=96, width=128, results=3, title="face.png"):
    return Report(
        title=title,
        facts=(("model", "vdvae-sr-x4"), ("seed", "0")),
        input=Entry(label="input", rgb=noisy(height // 4, width // 4)),
        results=tuple(Entry(label=f"s{i}", rgb=noisy(height, width, i)) for i in range(results)),
        deviations=(Entry(label="up to 9.0 of 255", rgb=noisy(height, width, 9)),),
        figures=(
            Figures(
                title="Temperature 0.8",
                head=("picture", "LR-PSNR, dB"),
                rows=(("s0", "79.1"), ("s1", "79.2")),
                notes=(("APD", "0.001"),),
            ),
        ),
    )


def embedded(page):
    match = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    return json.loads(match[1])


def test_holds_everything_and_nothing_outside():
    page = render(report_of())
    data = embedded(page)
    assert [entry["label"] for entry in data["results"]] == ["s0", "s1", "s2"]
    assert data["figures"][0]["rows"] == [["s0", "79.1"], ["s1", "79.2"]]
    assert not data["reduced"]
    assert "default-src 'none'" in page
    assert not re.search(r"https?://|@import|\bfetch\(|XMLHttpRequest", page)
    sources = re.findall(r'"src":"(.{5})', page)
    assert set(sources) == {"data:"}


def test_a_picture_may_be_longer_than_webp_takes():
    data = embedded(render(report_of(4, 17_000, results=1)))
    assert data["width"] == 17_000 and data["results"][0]["src"].startswith("data:image/webp")


def test_a_hostile_name_stays_text():
    title = '</script><img src=x onerror="alert(1)">.png'
    page = render(report_of(title=title))
    assert embedded(page)["title"] == title
    assert "<img src=x" not in page


@pytest.mark.parametrize("side", [512, 1100])
def test_stays_small_for_large_results(side):
    page = render(report_of(side, side, results=2), page_bytes=400_000)
    assert len(page.encode()) < 400_000
    assert embedded(page)["width"] == side


def test_the_largest_page_is_below_five_megabytes():
    assert PAGE_BYTES < 5_000_000


@pytest.fixture
def page(browser, tmp_path):
    path = tmp_path / "out.html"
    write_report(path, report_of())
    browser.open(path.as_uri())
    return browser


def test_loads_without_errors(page):
    assert page.log() == []
    loaded = "return [...document.images].every(i => i.complete && i.naturalWidth > 0)"
    assert page.run(loaded)
    assert page.run("return document.querySelectorAll('#grid img').length") == 4
    assert page.run("return document.querySelector('h1').textContent") == "face.png"
    assert page.run("return document.querySelectorAll('tbody tr').length") == 2


def split_of(page):
    value = page.run("return document.querySelector('#split').value")
    shown = page.run("return document.querySelector('#compare').style.getPropertyValue('--split')")
    assert shown == f"{value}%"
    return float(value)


def test_the_slider_moves_by_mouse(page):
    page.drag("#split", (0.5, 0.5), (0.2, 0.5))
    assert split_of(page) == pytest.approx(20, abs=4)


def test_the_slider_moves_by_keys(page):
    page.keys("#split", "\ue014", "\ue014")  # arrow right
    assert split_of(page) == 51
    page.keys("#split", "\ue011")  # Home
    assert split_of(page) == 0
    clip = page.run("return getComputedStyle(document.querySelector('.before')).clipPath")
    assert "100%" in clip


def test_zoom_is_shared_and_moved_by_keys(page):
    page.keys("#grid .pane", "+", "+", "\ue014")
    transforms = page.run(
        "const all = [...document.querySelectorAll('.view img')].map(i => i.style.transform);"
        "return [...new Set(all)]"
    )
    assert len(transforms) == 1
    assert "scale(2.25)" in transforms[0]
    moved = page.run("return zoom.x")
    assert moved > 0.5
    page.keys("#grid .pane", "0")
    assert page.run("return zoom.z") == 1


def test_dragging_a_pane_moves_all(page):
    page.keys("#grid .pane", "+", "+")
    page.drag("#grid .pane", (0.5, 0.5), (0.3, 0.5))
    assert page.run("return zoom.x") > 0.55


def test_the_deviation_fades_by_keys(page):
    page.keys("#opacity", "\ue011")
    assert page.run("return document.querySelector('#map-image').style.opacity") == "0"
    page.keys("#opacity", "\ue010")
    assert page.run("return document.querySelector('#map-image').style.opacity") == "1"


def test_nothing_is_wider_than_a_phone(page):
    with page.phone():
        width, inner = page.run("return [document.documentElement.scrollWidth, window.innerWidth]")
    assert width <= inner == 390


def test_every_control_has_a_name(page):
    nameless = page.run(
        "return [...document.querySelectorAll('input,select,button,[tabindex]')].filter(e => "
        "!(e.ariaLabel || e.textContent.trim() || e.labels?.length)).map(e => e.outerHTML)"
    )
    assert nameless == []
