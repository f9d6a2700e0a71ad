"""The bars of a run, as a terminal shows them: what is printed meanwhile stays."""

import re
import sys
import time

import pytest
import torch

from vdsr_cli.batch.listing import FolderListing
from vdsr_cli.bench.report import PictureScore
from vdsr_cli.cli.bench_render import BenchProgress
from vdsr_cli.cli.console import bring, tile_progress
from vdsr_cli.cli.train_progress import training_progress
from vdsr_cli.errors import WeightsError
from vdsr_cli.paths import plan_naming


class Terminal:
    """A stream that says it is a terminal, and what its screen shows."""

    encoding = "utf-8"

    def __init__(self) -> None:
        self.written = ""

    def write(self, text: str) -> int:
        self.written += text
        return len(text)

    def flush(self) -> None:
        pass

    def isatty(self) -> bool:
        return True

    @property
    def screen(self) -> list[str]:
        """The lines, after line feeds, moves upwards and erasures."""
        lines, row = [""], 0
        for control, text in re.findall(
            r"(\x1b\[[0-9;?]*[A-Za-z]|\n|\r)|([^\x1b\n\r]+)", self.written
        ):
            if control == "\n":
                row += 1
                lines += [""] * (row + 1 - len(lines))
            elif control == "\r":
                continue
            elif control.endswith("A"):
                row -= int(control[2:-1] or 1)
                assert row >= 0
            elif control.endswith("K"):
                lines[row] = ""
            else:
                lines[row] += text
        return lines


@pytest.fixture
def open_terminal(monkeypatch):
    """``open_terminal()``: both streams are a terminal of 80 columns."""

    def open() -> Terminal:
        shown = Terminal()
        monkeypatch.setattr(sys, "stdout", shown)
        monkeypatch.setattr(sys, "stderr", shown)
        monkeypatch.setenv("TERM", "xterm")
        monkeypatch.setenv("COLUMNS", "80")
        return shown

    return open


def test_lines_between_the_bars_stay(open_terminal):
    terminal = open_terminal()
    with tile_progress(3, quiet=False) as bars:
        for name in ("a", "b", "c"):
            bars.start(f"{name}.png", 2)
            bars.advance(2)
            bars.progress.refresh()
            bars.finish("done")
            with bars.cleared():
                terminal.write(f"{name}_x4.png\n")
            bars.progress.refresh()
            assert any(re.search(r"pictures +\S+ +\d/3 pictures", line) for line in terminal.screen)
    assert [line for line in terminal.screen if line] == ["a_x4.png", "b_x4.png", "c_x4.png"]


def test_the_line_of_a_long_name_fits_80_columns(open_terminal):
    terminal = open_terminal()
    with tile_progress(1, quiet=False) as bars:
        bars.start("photograph" * 12 + ".png", 123456)
        bars.progress.refresh()
        (line,) = [line for line in terminal.screen if "photograph" in line]
        assert len(line.rstrip()) <= 80 and "0/123456 tiles" in line


def test_a_new_picture_does_not_show_the_time_left_of_the_one_before(open_terminal):
    terminal = open_terminal()
    with tile_progress(1, quiet=False) as bars:
        bars.start("a.png", 2)
        bars.advance(2)
        bars.progress.refresh()
        assert "2/2 tiles 0:00:00 left" in terminal.screen[0]
        bars.start("b.png", 2)
        bars.progress.refresh()
        assert "0/2 tiles -:--:-- left" in terminal.screen[0]


def test_the_bar_of_a_benchmark_reckons_by_the_model_not_by_bicubic(open_terminal):
    terminal = open_terminal()
    now = 0.0
    known = {"dataset": "Set5", "picture": "a", "temperature": 0.0, "seed": 0}
    known |= {"megapixels": 1.0, "scores": {}}
    with BenchProgress(quiet=False) as bars:
        bars._progress.get_time = lambda: now
        bars.start("Set5", 10)
        for method in 5 * ["bicubic"] + 3 * ["vdvae-sr-x4"]:
            now += 0.1 if method == "bicubic" else 10
            bars.score(PictureScore(method=method, **known))
        bars._progress.refresh()
        assert re.search(r"Set5 \S+ +8/10 scores 0:00:20 left", terminal.screen[0])


def test_a_model_that_is_elsewhere_arrives_under_a_bar(open_terminal, monkeypatch):
    asked = []

    def resolve(model, *, progress):
        asked.append(model)
        progress(1_500_000, 3_000_000)

    monkeypatch.setattr("vdsr_cli.weights.resolve", resolve)
    terminal = open_terminal()
    address = "hf://owner/repo/m.safetensors"
    bring("vdvae-sr-x4", "auto", None, "mine.safetensors", address, quiet=False)
    assert asked == [address]
    assert re.search(r"m\.safetensors .+1\.5/3\.0 MB", terminal.written)
    bring(address, quiet=True)
    assert asked == [address]


@pytest.mark.parametrize(
    "words",
    [
        ("cnn-vae", "score"),
        ("cnn-vae", "figure", "-o", "a.png"),
        ("srvae", "generate", "-o", "a.png"),
        ("srvae", "score", "."),
    ],
    ids=" ".join,
)
def test_models_of_the_small_systems_arrive_under_a_bar_too(vdsr, monkeypatch, tmp_path, words):
    monkeypatch.chdir(tmp_path)
    asked = []

    def bring(model, *, quiet):
        asked.append(model)
        raise WeightsError("on its way")

    monkeypatch.setattr(f"vdsr_cli.cli.{words[0].replace('-', '_')}.bring", bring)
    assert vdsr(*words, "-m", "hf://owner/repo/m.safetensors").lines == ["vdsr: on its way"]
    assert asked == ["hf://owner/repo/m.safetensors"]


def test_the_total_is_counted_while_the_run_goes_on(tmp_path, save_picture):
    for name in ("a.png", "b.png", "a_x4.png", "notes.txt", ".hidden"):
        save_picture(tmp_path / name) if name.endswith("png") else (tmp_path / name).touch()
    listing = FolderListing(folder=tmp_path, naming=plan_naming(None, tag="x4"))
    assert list(listing.count()) == [1, 2]
    assert len(list(listing)) == 2
    assert (listing.own_outputs, listing.unknown) == (1, 1)


def test_the_closing_line(vdsr, tiny_path, save_picture, tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        save_picture(tmp_path / "in" / name)
    (tmp_path / "in" / "d.png").write_bytes(b"none")
    (tmp_path / "in" / "notes.txt").touch()
    asked = ("upscale", tmp_path / "in", "-m", tiny_path, "-o", tmp_path / "out")
    assert vdsr(*asked).lines[-1] == "vdsr: 3 done, 1 failed, 1 skipped (unknown format)"
    again = vdsr(*asked, "--skip-existing").lines[-1]
    assert again == "vdsr: 0 done, 1 failed, 3 skipped (exist), 1 skipped (unknown format)"
    assert not vdsr("upscale", tmp_path / "in" / "a.png", "-m", tiny_path).err


def test_a_run_shows_its_first_step_and_the_end_of_its_leg(open_terminal):
    terminal = open_terminal()
    with training_progress(10_000, quiet=False, minutes=5) as progress:
        assert "reading pictures" in terminal.screen[0]
        progress.on_read(3, 1000)
        progress.bar.refresh()
        assert re.match(r" *3/1000 \S+ +reading pictures", terminal.screen[0])
        progress.on_log({"step": 0, "val_psnr_y": 29.5})
        progress.on_step(100, {})
        progress._began = (100, time.monotonic() - 60)
        progress.on_step(
            101, {"distortion_bits": torch.tensor(3.0), "rate_bits": torch.tensor(1.0)}
        )
        progress.bar.refresh()
        (line,) = [line for line in terminal.screen if "101/10000" in line]
        assert re.match(
            r" *101/10000 \S+ +0:0(5:00|4:5\d) left PSNR-Y 29.50 dB, -ELBO 4.000, 60 s/step", line
        )
        progress.on_log({"step": 102, "loss": 1.0, "mean_l1": 0.0123456, "seconds_per_step": 1.0})
        progress.on_step(102, {})
        progress.bar.refresh()
        assert any("L1 0.0123, 30 s/step" in line for line in terminal.screen)
        progress.on_log({"step": 102, "val_psnr_y": 30.25})
        progress.on_step(20_000, {})
        progress.bar.refresh()
        assert any("PSNR-Y 30.25 dB, L1 0.0123, " in line for line in terminal.screen)
        assert any("s/step" in line for line in terminal.screen)
        assert all(len(line.rstrip()) <= 80 for line in terminal.screen)


def test_a_run_ends_with_how_to_go_on(vdsr, save_picture, tmp_path, tiny_path):
    photo = save_picture(tmp_path / "a.png", 96, 96)
    run = tmp_path / "run"
    asked = ("train", "vdvae-sr", photo, "--from", tiny_path, "-o", run, "--batch", 1)
    asked += ("--lr-size", 16, "--val-every", 0, "--workers", 1, "--rescale", 1, "--steps")
    ended = vdsr(*asked, 2)
    assert ended.out.decode().split() == [str(run)]
    assert ended.lines[-3:] == [
        f"vdsr: {run} is at step 2 of 2",
        "vdsr: the same command with more --steps resumes from there",
        f"vdsr: vdsr train export {run} -o FILE.safetensors makes a model",
    ]
    assert not vdsr(*asked, 3, "-q").err
