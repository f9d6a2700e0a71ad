"""The benchmark: what it finds, how it scores, and what it refuses to believe."""

import csv
import json
import math
import os
import shutil
import sys
from dataclasses import replace
from functools import partial
from io import BytesIO
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch
from loaded import CPU
from PIL import Image

from vdsr_cli.bench import fid as bench_fid
from vdsr_cli.bench import run as bench_module
from vdsr_cli.bench import verify as bench_verify
from vdsr_cli.bench.crops import worst_place
from vdsr_cli.bench.data import (
    Pair,
    Protocol,
    Scene,
    discover,
    load_scene,
    read_pixels,
)
from vdsr_cli.bench.fid import SetFeatures
from vdsr_cli.bench.likelihood import elbo_bits, lossless_bits, palette_of
from vdsr_cli.bench.methods import FolderMethod, ModelMethod, row_names
from vdsr_cli.bench.plot import temperature_figure
from vdsr_cli.bench.published import (
    BicubicFigure,
    KnownSet,
    load_known_sets,
    published_rows,
)
from vdsr_cli.bench.report import (
    COLUMNS,
    PictureScore,
    Report,
    json_number,
    mean_row,
    worst_pictures,
    write_csv,
)
from vdsr_cli.bench.run import BenchRequest, Events, run_bench
from vdsr_cli.bench.scoring import Scorer
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import InputError, UsageError, WeightsError
from vdsr_cli.figures.plot import save_figure
from vdsr_cli.images import encode_levels
from vdsr_cli.images.resize import bicubic
from vdsr_cli.loading import load
from vdsr_cli.metrics.learned import Learned, choose_metrics, load_learned
from vdsr_cli.models.blocks import drawn_rates
from vdsr_cli.models.protocol import Sampler
from vdsr_cli.paths import Source
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

BENCH = Path(__file__).parents[3] / "shared" / "data" / "bench"


pytestmark = pytest.mark.usefixtures("empty_cache")


@pytest.fixture
def tiny(tiny_path):
    return load(str(tiny_path), CPU, expects=Sampler)


@pytest.fixture
def photos(tmp_path, save_picture):
    """Two small HR pictures whose sides are no multiples of four."""
    folder = tmp_path / "photos"
    folder.mkdir()
    save_picture(folder / "a.png", 50, 43, seed=1)
    save_picture(folder / "b.png", 41, 64, seed=2)
    return folder


def score(request: BenchRequest, *models) -> Report:
    return run_bench(request, models, CPU, Events())


def timeless(report: Report) -> str:
    """The report as JSON without what no two runs share."""
    document = report.as_json()
    document.pop("peak_memory_mib")
    for row in document["rows"] + document["pictures"]:
        row.pop("seconds_per_megapixel", None)
        row.pop("seconds_per_megapixel_std", None)
    return json.dumps(document)


# What is found


LAYOUTS = {
    "hr alone": (["a.png", "b.jpg"], {"a": None, "b": None}),
    "folders": (["HR/a.png", "LRx4/a.png"], {"a": "LRx4/a.png"}),
    "div2k": (["HR/0801.png", "LR_bicubic/X4/0801x4.png"], {"0801": "LR_bicubic/X4/0801x4.png"}),
    "side by side": (
        ["i_SRF_4_HR.png", "i_SRF_4_LR.png"],
        {"i_SRF_4": "i_SRF_4_LR.png"},
    ),
    "lr below": (["a.png", "LRx4/a.png"], {"a": "LRx4/a.png"}),
    "lr missing": (["HR/a.png", "HR/b.png", "LRx4/a.png"], {"a": "LRx4/a.png", "b": "LRx4/b.png"}),
    "other scale": (["HR/a.png", "LRx2/a.png"], {"a": None}),
    "one stem": (
        ["a.png", "a.jpg", "a.tif", "b.png", "a.png.bmp"],
        {"a.png": None, "a.jpg": None, "a.tif": None, "b": None, "a.png.bmp": None},
    ),
    "one stem, folders": (
        ["HR/a.png", "HR/a.jpg", "HR/b.png", "LRx4/ax4.png", "LRx4/b.bmp", "LRx4/b.jpg"],
        {"a.png": "LRx4/ax4.png", "a.jpg": "LRx4/ax4.jpg", "b": "LRx4/b.png"},
    ),
    "one stem, side by side": (
        ["a_HR.png", "a_HR.jpg", "a_LR.png", "b_HR.png"],
        {"a.png": "a_LR.png", "a.jpg": "a_LR.jpg", "b": None},
    ),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts(tmp_path, layout):
    files, expected = LAYOUTS[layout]
    for file in files:
        path = tmp_path / "set" / file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    (dataset,) = discover([tmp_path / "set"], 4)
    root = tmp_path / "set"
    found = {p.name: p.lr and p.lr.relative_to(root).as_posix() for p in dataset.pairs}
    assert (dataset.name, found) == ("set", expected)
    assert not dataset.notes


def test_pictures_beside_hr_and_lr_are_told(tmp_path):
    for name in ("a_HR.png", "a_LR.png", "a_SRCNN.png", "b.png"):
        (tmp_path / name).touch()
    (dataset,) = discover([tmp_path], 4)
    assert [pair.name for pair in dataset.pairs] == ["a"]
    assert dataset.notes == [f"{dataset.name}: 2 pictures passed over, neither *_HR nor its *_LR"]


def test_a_folder_of_sets_and_a_single_picture(tmp_path):
    for name in ("Set14/HR/x.png", "Set5/HR/y.png", ".hidden/z.png", "empty/note.txt"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    assert [d.name for d in discover([tmp_path], 4)] == ["Set5", "Set14"]
    (dataset,) = discover([tmp_path / "Set5/HR/y.png"], 4)
    assert (dataset.name, dataset.pairs[0].lr) == ("y", None)
    twice = discover([tmp_path / "Set5", tmp_path / "Set5"], 4)
    assert [d.name for d in twice] == [str(tmp_path / "Set5")] * 2


def test_a_set_is_found_whatever_the_case_of_its_name(tmp_path):
    (tmp_path / "Set5").mkdir()
    (tmp_path / "Set5/x.png").touch()
    (dataset,) = discover([tmp_path / "set5"], 4)
    assert (dataset.name, dataset.path) == ("Set5", tmp_path / "Set5")
    (tmp_path / "SET5").mkdir()
    with pytest.raises(InputError, match="set5"):
        discover([tmp_path / "set5"], 4)


def test_sibling_lr_folder(tmp_path):
    for name in ("DIV2K_valid_HR/0801.png", "DIV2K_valid_LR_bicubic/X4/0801x4.png"):
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).touch()
    (dataset,) = discover([tmp_path / "DIV2K_valid_HR"], 4)
    assert dataset.pairs[0].lr == tmp_path / "DIV2K_valid_LR_bicubic/X4/0801x4.png"


def test_nothing_to_score(tmp_path):
    (tmp_path / "empty").mkdir()
    for path in (tmp_path / "empty", tmp_path / "absent"):
        with pytest.raises(InputError, match=path.name):
            discover([path], 4)


# What becomes of a pair


def test_a_scene_is_cropped_and_its_lr_made(photos):
    scene = load_scene(Pair(name="a", hr=photos / "a.png"), Protocol.standard, 4)
    assert scene.hr.shape == (3, 40, 48) and scene.lr.shape == (3, 10, 12)
    assert scene.source_size == (50, 43)
    assert torch.equal(scene.lr, degrade_8bit(scene.hr.unsqueeze(0), 4)[0])


def test_a_shipped_lr_is_used_and_checked(tmp_path, save_picture):
    hr = save_picture(tmp_path / "hr.png", 40, 40)
    lr = save_picture(tmp_path / "lr.png", 10, 10, seed=5)
    scene = load_scene(Pair(name="x", hr=hr, lr=lr), Protocol.standard, 4)
    expected = torch.from_numpy(np.array(Image.open(lr))).permute(2, 0, 1)
    assert torch.equal(scene.lr, expected)
    wrong = save_picture(tmp_path / "wrong.png", 11, 10)
    with pytest.raises(InputError, match=r"wrong.png: 11x10 is no 1/4 of 40x40"):
        load_scene(Pair(name="x", hr=hr, lr=wrong), Protocol.standard, 4)


def test_too_small(tmp_path, save_picture):
    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", 100, 31))
    with pytest.raises(InputError, match=r"100x31 is too small to score at scale 4.*needs 32"):
        load_scene(pair, Protocol.standard, 4)


def test_a_picture_must_be_large_enough_once_cropped_and_shaved(tmp_path, save_picture):
    small = Pair(name="x", hr=save_picture(tmp_path / "x.png", 35, 35))
    with pytest.raises(InputError, match=r"35x35 is too small to score at scale 9.*needs 36"):
        load_scene(small, Protocol.standard, 9)
    enough = Pair(name="y", hr=save_picture(tmp_path / "y.png", 36, 37))
    scene = load_scene(enough, Protocol.standard, 9)
    scorer = Scorer(Protocol.standard, Learned())
    assert scorer.score(scene, scene.hr.unsqueeze(0))["ssim_y"] == pytest.approx(1)


@pytest.mark.parametrize(("width", "height"), [(300, 200), (100, 333), (256, 256)])
@pytest.mark.parametrize(("protocol", "side"), [(Protocol.paper, 256), (Protocol.paper_64, 64)])
def test_the_paper_protocols(tmp_path, save_picture, width, height, protocol, side):
    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", width, height))
    scene = load_scene(pair, protocol, 4)
    assert scene.hr.shape == (3, side, side) and scene.lr.shape == (3, side // 4, side // 4)
    if width == side:
        assert torch.equal(scene.hr, read_pixels(pair.hr))


def test_the_articles_protocol_is_whole_pictures_reduced_by_pillow(tmp_path, save_picture):
    path = save_picture(tmp_path / "x.png", 101, 66)
    scene = load_scene(Pair(name="x", hr=path), Protocol.article, 4)
    with Image.open(path) as picture:
        whole = picture.crop((0, 0, 100, 64))
        lr = np.array(whole.resize((25, 16), Image.Resampling.BICUBIC))
    assert np.array_equal(scene.hr.permute(1, 2, 0), np.array(whole))
    assert np.array_equal(scene.lr.permute(1, 2, 0), lr)
    assert Protocol.article.shave_px(4) == 0
    scores = Scorer(Protocol.article, Learned()).score(scene, scene.hr.unsqueeze(0))
    assert scores["lr_psnr"] == math.inf and scores["ssim_y"] == pytest.approx(1)


# The baseline


def test_bicubic_keeps_a_constant_and_a_ramp():
    flat = torch.full((3, 5, 7), 77, dtype=torch.uint8)
    assert torch.equal(bicubic(flat, 4), torch.full((3, 20, 28), 77, dtype=torch.uint8))
    ramp = (torch.arange(20) * 8).expand(3, 4, 20).to(torch.uint8)
    inner = bicubic(ramp, 4)[0, 8, 16:-16].double()
    expected = (torch.arange(16, 64) + 0.5) * 2 - 4
    assert torch.equal(inner, expected.round())


@pytest.mark.parametrize("protocol", [Protocol.standard, Protocol.paper])
@pytest.mark.parametrize("name", ["Set5", "Set14"])
def test_bicubic_is_verified_on_the_known_sets(name, protocol):
    if not (BENCH / name).is_dir():
        pytest.skip("the benchmark sets lie beside the repository")
    report = score(BenchRequest(paths=(BENCH / name,), protocol=protocol))
    (facts,), (row,) = report.datasets, report.rows()
    assert (facts.known_as, facts.verified, row.label) == (name, True, "bicubic")
    if protocol is Protocol.standard:
        psnr, ssim = {"Set5": (28.4318, 0.8113), "Set14": (26.0928, 0.7049)}[name]
        assert row.scores["psnr_y"].mean == pytest.approx(psnr, abs=1e-4)
        assert row.scores["ssim_y"].mean == pytest.approx(ssim, abs=1e-4)
    assert report.exit_code == 0


def known(size: tuple[int, int], psnr: float) -> KnownSet:
    figure = BicubicFigure(
        protocol="standard", scale=4, scores={"psnr_y": psnr}, preparation="made"
    )
    return KnownSet(
        name="Set1", title="", pictures=1, sizes=(size,), url="", terms="", bicubic=(figure,)
    )


def test_a_known_set_with_other_figures_is_not_scored(photos, monkeypatch, tiny):
    (photos / "b.png").unlink()
    monkeypatch.setattr(bench_verify, "load_known_sets", lambda: [known((50, 43), 12.0)])
    request = BenchRequest(paths=(photos,))
    report = score(request, tiny)
    assert report.exit_code == 3 and not report.pictures
    assert "Set1: bicubic gives psnr_y" in report.failures[0].error
    report = score(replace(request, verify=False), tiny)
    assert report.exit_code == 0 and report.datasets[0].verified is False
    psnr = report.rows()[0].scores["psnr_y"].mean
    monkeypatch.setattr(bench_verify, "load_known_sets", lambda: [known((50, 43), psnr - 0.019)])
    assert score(request, tiny).datasets[0].verified is True


# A run


def test_rows_and_their_order(photos, tiny):
    request = BenchRequest(paths=(photos,), temperatures=(0.0, 0.8), seeds=(3, 4))
    report = score(request, tiny)
    rows = report.rows()
    assert [row.label for row in rows] == ["bicubic", "tiny t=0", "tiny t=0.8"]
    assert [row.seeds for row in rows] == [(), (), (3, 4)]
    assert [row.pictures for row in rows] == [2, 2, 2]
    assert rows[2].scores["psnr_y"].std is not None and rows[1].scores["psnr_y"].std is None
    assert rows[1].scores["lr_psnr"].mean > 45
    assert report.notes and "lpips" in report.notes[0]


def test_a_second_run_is_identical(photos, tiny):
    request = BenchRequest(paths=(photos,), likelihood=True)
    first, second = score(request, tiny), score(request, tiny)
    assert timeless(first) == timeless(second)
    other = score(replace(request, seeds=(1,)), tiny)
    assert timeless(first) != timeless(other)


def test_the_diverse_protocol(photos, tiny):
    request = BenchRequest(paths=(photos,), protocol=Protocol.diverse, samples=3)
    rows = {row.label: row.scores for row in score(request, tiny).rows()}
    assert rows["bicubic"]["apd_mse"].mean == 0 < rows["tiny t=0.8"]["apd_mse"].mean
    assert "psnr_y" not in rows["bicubic"] and "ssim_rgb" in rows["bicubic"]
    worst, mean = (rows["tiny t=0.8"][key].mean for key in ("lr_psnr_worst", "lr_psnr"))
    assert worst <= mean
    with pytest.raises(UsageError, match="2 samples"):
        replace(request, samples=1)


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_samples_are_drawn_in_one_pass(tmp_path, save_picture, tiny, monkeypatch, mode):
    hr = save_picture(tmp_path / "x.png", 56, 40, mode=mode)
    scene = load_scene(Pair(name="x", hr=hr), Protocol.diverse, 4)
    upscale = UpscaleRequest(settings=SamplingSettings(seed=4))
    method = ModelMethod(name="m", loaded=tiny, request=upscale, runtime=CPU, samples=3)
    calls = []
    means = type(tiny.model).means

    def counted(self, lr, noise, temperature, *, repeats=1):
        calls.append(repeats)
        return means(self, lr, noise, temperature, repeats=repeats)

    monkeypatch.setattr(type(tiny.model), "means", counted)
    together = method.draw("d", scene).samples
    assert calls == [3], "all at once, and the one without the projection is the first of them"
    assert together.shape == (3, 3, 40, 56)
    for index, drawn in enumerate(together):
        settings = replace(upscale.settings, samples=(index,))
        alone = replace(method, samples=1, request=replace(upscale, settings=settings))
        difference = alone.draw("d", scene).samples[0].int() - drawn.int()
        assert difference.abs().float().mean() < 1, "rounding alone tells them apart"


class MeanColours:
    """Stands in for Inception: three numbers a picture."""

    def __call__(self, pixels):
        return pixels.double().mean((1, 2))


def test_fid_of_a_dataset(photos, tiny, monkeypatch):
    learned = Learned(inception=MeanColours())
    monkeypatch.setattr(bench_module, "load_learned", lambda *arguments, **options: learned)
    request = BenchRequest(paths=(photos,), seeds=(0, 1))
    report = score(request, tiny)
    assert not report.sets and "photos: FID needs 50 pictures, there are 2" in report.notes
    assert not report.unscored
    asked = score(replace(request, metrics=choose_metrics("fid")))
    assert asked.unscored == {"fid": "under 50 pictures"} and asked.exit_code == 0
    monkeypatch.setattr(bench_fid, "FEWEST_PICTURES", 2)
    rows = score(request, tiny).rows()
    assert [row.scores["fid"].std is None for row in rows] == [True, False]
    assert all(row.scores["fid"].mean > 0 for row in rows)


def test_fid_of_the_ground_truth_is_nothing(photos):
    scene = load_scene(Pair(name="a", hr=photos / "a.png"), Protocol.standard, 4)
    sets = SetFeatures(MeanColours())
    for index in range(50):
        shifted = replace(scene, name=str(index), hr=scene.hr.roll(index, 1) // (1 + index % 3))
        sets.add(("m", None, None), shifted, shifted.hr.unsqueeze(0))
        sets.add(("half", None, None), shifted, shifted.hr.unsqueeze(0) // 2)
    scores = sets.scores()
    assert scores["m", None, None] == pytest.approx(0, abs=1e-6)
    assert scores["half", None, None] > 100


def test_what_is_asked_for_and_missing_is_said(photos):
    report = score(BenchRequest(paths=(photos,), metrics=choose_metrics("dists,brisque")))
    assert report.unscored == {"dists": "no weights", "brisque": "no weights"}
    assert [column.key for column in report.columns()][-5:-3] == ["dists", "brisque"]
    dists, brisque = report.failures
    assert "dists is not scored: https://download.pytorch.org" in dists.error
    assert "allmodel is not on this disk" in brisque.error and "utlive" in brisque.hint
    assert report.exit_code == 4 and len(report.rows()) == 1
    report = score(BenchRequest(paths=(photos,), metrics=()))
    assert report.exit_code == 0 and not report.notes


def test_bad_pictures_are_named_and_the_others_scored(tmp_path, save_picture, tiny):
    for folder in ("HR", "LRx4"):
        (tmp_path / folder).mkdir()
    sizes = {"good": (48, 48), "small": (20, 20), "mismatch": (48, 48), "lonely": (48, 48)}
    for name, size in sizes.items():
        save_picture(tmp_path / "HR" / f"{name}.png", *size)
    save_picture(tmp_path / "LRx4" / "good.png", 12, 12)
    save_picture(tmp_path / "LRx4" / "small.png", 5, 5)
    save_picture(tmp_path / "LRx4" / "mismatch.png", 13, 12)
    (tmp_path / "HR" / "broken.png").write_text("no picture")
    seen = []
    events = Events(on_failure=seen.append)
    report = run_bench(BenchRequest(paths=(tmp_path,)), [tiny], CPU, events)
    assert {f.picture for f in report.failures} == {"small", "mismatch", "lonely", "broken"}
    assert seen == report.failures and report.exit_code == 3
    assert {s.picture for s in report.pictures} == {"good"}
    assert [row.label for row in report.rows()] == ["bicubic", "tiny t=0.8"]


def test_other_tools_pictures(photos, tmp_path):
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    Image.open(photos / "a.png").crop((0, 0, 48, 40)).save(theirs / "a_x4.png")
    shutil.copy(photos / "b.png", theirs / "b.png")
    report = score(BenchRequest(paths=(photos,), against=(theirs,)))
    row = report.rows()[1]
    assert (row.label, row.pictures, row.scores["psnr_y"].mean) == ("theirs", 1, math.inf)
    (failure,) = report.failures
    assert (failure.method, failure.picture) == ("theirs", "b") and "41x64" in failure.error
    with pytest.raises(InputError, match="no such folder"):
        score(BenchRequest(paths=(photos,), against=(tmp_path / "absent",)))


def test_sets_of_one_name_are_not_scored_against_themselves(save_picture, tmp_path):
    for folder in ("a/photos", "b/photos", "theirs"):
        (tmp_path / folder).mkdir(parents=True)
        save_picture(tmp_path / folder / "p.png", 48, 48)
    Image.new("RGB", (48, 48)).save(tmp_path / "theirs" / "p.png")
    sets = (tmp_path / "a/photos", tmp_path / "b/photos")
    report = score(BenchRequest(paths=sets, against=(tmp_path / "theirs",)))
    psnrs = [row.scores["psnr_y"].mean for row in report.rows() if row.label == "theirs"]
    assert psnrs and max(psnrs) < 30


def test_a_folder_that_is_called_as_the_baseline_has_a_row_of_its_own(
    photos, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    Path("bicubic").mkdir()
    Image.open(photos / "a.png").crop((0, 0, 48, 40)).save("bicubic/a.png")
    report = score(BenchRequest(paths=(photos,), against=(Path("bicubic"),)))
    assert [row.label for row in report.rows()] == ["bicubic", str(tmp_path / "bicubic")]


@pytest.mark.parametrize(("mode", "scale"), [("RGB", 4), ("L", 4), ("RGB", 2), ("RGB", 8)])
def test_a_model_is_scored_as_upscale_runs_it(tmp_path, save_picture, tiny, mode, scale):
    for folder in ("HR", f"LRx{scale}"):
        (tmp_path / folder).mkdir()
    save_picture(tmp_path / "HR" / "a.png", 20 * scale, 16 * scale)
    lr = save_picture(tmp_path / f"LRx{scale}" / "a.png", 20, 16, seed=9, mode=mode)
    settings = SamplingSettings(temperature=0.7, seed=5, tile=16, overlap=4)
    upscale = UpscaleRequest(settings=settings, scale=scale)
    written = upscale_file(
        Source(path=lr),
        tmp_path / "out" / "a.png",
        tiny,
        upscale,
        CPU,
        stdin=BytesIO(),
        stdout=BytesIO(),
    )
    assert written.exit_code == 0
    request = BenchRequest(
        paths=(tmp_path,),
        scale=scale,
        temperatures=(0.7,),
        seeds=(5,),
        upscale=upscale,
        against=(tmp_path / "out",),
    )
    report = score(request, tiny)
    told = [note for note in report.notes if "is a model for scale 4" in note]
    assert len(told) == (scale != 4)
    _, ours, theirs = report.rows()
    for key in ("psnr_rgb", "ssim_y", "lr_psnr"):
        assert ours.scores[key] == theirs.scores[key]


def test_a_name_is_found_exactly_first(tmp_path):
    for name in ("1.png", "1_x4.png", "12.png", "2_x4.png", "2_x8.png"):
        (tmp_path / name).touch()
    method = FolderMethod(folder=tmp_path, name="x")
    assert method._find("set", "1") == [tmp_path / "1.png"]
    for stem, reason in (("2", "several"), ("3", "no picture")):
        with pytest.raises(InputError, match=reason):
            method._find("set", stem)


def test_pictures_of_one_stem_are_told_apart(tmp_path):
    for name in ("a.png", "a.jpg", "b_png_x4.png", "b_jpg_x4.png", "c.d_png_x4.png"):
        (tmp_path / name).touch()
    method = FolderMethod(folder=tmp_path, name="x")
    for name, file in (
        ("a.png", "a.png"),
        ("a.jpg", "a.jpg"),
        ("b.png", "b_png_x4.png"),
        ("c.d.png", "c.d_png_x4.png"),
    ):
        assert method._find("set", name) == [tmp_path / file]
    with pytest.raises(InputError, match=r"no picture of the name a\.tif"):
        method._find("set", "a.tif")


def test_several_samples_of_another_tool_have_diversity(photos, tmp_path):
    """Three copies of a picture, one of them a grey level brighter, in order of number."""
    folder = tmp_path / "out"
    folder.mkdir()
    for path in sorted(photos.glob("*.png")):
        hr = np.array(Image.open(path).convert("RGB"))[:32, :32].clip(0, 254)
        for number, levels in (("2", hr), ("10", hr), ("9", hr + 1)):
            Image.fromarray(levels).save(folder / f"{path.stem}_s{number}.png")
    method = FolderMethod(folder=folder, name="x")
    names = [path.name for path in method._find("set", "a")]
    assert names == ["a_s2.png", "a_s9.png", "a_s10.png"]
    for path in sorted(photos.glob("*.png")):
        with Image.open(path) as picture:
            picture.convert("RGB").crop((0, 0, 32, 32)).save(path)
    request = BenchRequest(paths=(photos,), protocol=Protocol.diverse, against=(folder,))
    row = score(request).rows()[1]
    assert row.scores["apd_mse"].mean == pytest.approx(1e4 * (2 / 3) / 255**2)


def test_what_the_request_refuses(photos, tiny):
    with pytest.raises(UsageError, match="for scale 4"):
        score(BenchRequest(paths=(photos,), scale=2, protocol=Protocol.diverse), tiny)
    for protocol in (Protocol.paper, Protocol.paper_64):
        with pytest.raises(UsageError, match="--scale 3 does not divide"):
            score(BenchRequest(paths=(photos,), scale=3, protocol=protocol))
    with pytest.raises(WeightsError, match="metric weights"):
        score(BenchRequest(paths=(photos,), metric_weights=photos / "absent"))
    report = score(BenchRequest(paths=(photos,), metric_weights=photos))
    names = "lpips, lpips-squeeze, lpips-vgg, dists, brisque, niqe, fid"
    assert f"no weights on this disk: {names}; name them in --metrics" in report.notes[0]


def test_names_of_rows(tmp_path):
    (tmp_path / "esrgan").mkdir()
    (tmp_path / "bicubic").mkdir()
    folders = [str(tmp_path / name) for name in ("esrgan", "bicubic")]
    assert row_names(["vdvae-sr-x4", "runs/a.safetensors", *folders]) == [
        "vdvae-sr-x4",
        "a",
        "esrgan",
        folders[1],
    ]
    assert row_names(["1/a.safetensors", "2/a.safetensors"]) == [
        "1/a.safetensors",
        "2/a.safetensors",
    ]


def test_learned_metrics_are_scored_where_their_weights_are(photos, tmp_path):
    metrics = BENCH.parents[1] / "metrics"
    if not metrics.is_dir():
        pytest.skip("the metric weights lie beside the repository")
    judge = Scorer(Protocol.diverse, load_learned(None, metrics))
    scene = load_scene(Pair(name="a", hr=photos / "a.png"), Protocol.diverse, 4)
    scores = judge.score(scene, torch.stack([scene.hr, bicubic(scene.lr, 4)]))
    assert {"lpips_alex", "lpips_squeeze", "brisque", "apd_lpips", "diversity"} <= set(scores)
    assert "niqe" not in scores
    assert scores["apd_lpips"] == pytest.approx(2000 * scores["lpips_alex"])
    assert scores["diversity"] == 0


def test_crops(photos, tiny, tmp_path):
    request = BenchRequest(paths=(photos,), worst=1, crops=tmp_path / "crops")
    score(request, tiny)
    (path,) = (tmp_path / "crops").iterdir()
    assert path.name.startswith("photos_")
    with Image.open(path) as strip:
        assert strip.width > 3 * 80


def test_a_crop_whose_name_is_taken_meanwhile_fails_alone(photos, tiny, tmp_path):
    crops = tmp_path / "crops"
    request = BenchRequest(paths=(photos,), worst=1, crops=crops)

    def take_names(score):
        crops.mkdir(exist_ok=True)
        for pair in photos.iterdir():
            (crops / f"photos_{pair.stem}.png").write_bytes(b"precious")

    report = run_bench(request, [tiny], CPU, Events(on_score=take_names))
    assert [failure.exit_code for failure in report.failures] == [6] == [report.exit_code]
    assert all(path.read_bytes() == b"precious" for path in crops.iterdir())
    assert report.pictures


def test_crops_of_two_sets_of_one_name_are_refused(photos, tiny, tmp_path):
    copy = tmp_path / "copy" / "photos"
    shutil.copytree(photos, copy)
    request = BenchRequest(paths=(photos, copy), worst=1, crops=tmp_path / "crops")
    with pytest.raises(UsageError, match="same name"):
        score(request, tiny)


def test_the_worst_place():
    hr = torch.zeros(3, 20, 30, dtype=torch.uint8)
    sr = hr.clone()
    sr[:, 12:16, 20:24] = 200
    top, left = worst_place(sr, hr, 8)
    assert top <= 12 <= 16 <= top + 8 and left <= 20 <= 24 <= left + 8
    assert worst_place(sr, hr, 99) == (0, 0)


# Bits per dimension


def test_elbo_bits(tiny_model, save_picture, tmp_path):
    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", 48, 36))
    scene = load_scene(pair, Protocol.standard, 4)
    bits = elbo_bits(tiny_model, scene, seed=0, runtime=CPU)
    parts = bits["distortion_bits"] + bits["rate_bits"]
    assert bits["bits_per_dim"] == pytest.approx(parts)
    rates = {k: v for k, v in bits.items() if k.startswith("rate_bits_cell_")}
    assert sum(rates.values()) == pytest.approx(bits["rate_bits"])
    assert list(rates) == [f"rate_bits_cell_{cell}" for cell in (16, 8, 4, 2)]
    assert all(rate > 0 for rate in rates.values())


def test_a_picture_of_few_colours_is_sent_by_its_palette(tiny_model, tmp_path):
    """At most an index of its four colours a pixel, and the palette; others by the bound."""
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (4, 3), np.uint8)
    Image.fromarray(colours[rng.integers(0, 4, (32, 48))]).save(tmp_path / "few.png")
    Image.fromarray(rng.integers(0, 256, (32, 48, 3), np.uint8)).save(tmp_path / "many.png")
    bits = {}
    for name in ("few", "many"):
        scene = load_scene(Pair(name=name, hr=tmp_path / f"{name}.png"), Protocol.standard, 4)
        bits[name] = elbo_bits(tiny_model, scene, seed=0, runtime=CPU)
    assert bits["many"]["palette_bits"] == bits["many"]["bits_per_dim"]
    palette = (4 * 24 + 8) / (3 * 32 * 48)
    inside = bits["few"]["palette_bits"] - bits["few"]["rate_bits"] - palette
    assert 0 < inside < bits["few"]["distortion_bits"]
    assert palette_of(torch.zeros(3, 8, 8, dtype=torch.uint8)).tolist() == [[-1, -1, -1]]


def test_lossless_bits_are_those_of_the_files(tiny_model, save_picture, tmp_path, monkeypatch):
    """The picture is cropped to whole cells of 16, and nothing but its pixels is in the file."""
    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", 48, 36))
    scene = load_scene(pair, Protocol.standard, 4)
    bits = elbo_bits(tiny_model, scene, seed=0, runtime=CPU)
    with Image.open(tmp_path / "x.png") as picture:
        picture.crop((0, 0, 48, 32)).save(tmp_path / "x.webp", lossless=True, quality=100)
    assert bits["webp_bits"] == 8 * (tmp_path / "x.webp").stat().st_size / (3 * 48 * 32)
    again = BytesIO()
    encode_levels(again, scene.hr[:, :32].permute(1, 2, 0).numpy(), format="jxl", quality=100)
    assert bits["jxl_bits"] == 8 * len(again.getvalue()) / (3 * 48 * 32)
    monkeypatch.setattr("vdsr_cli.bench.likelihood.has_extra", lambda extra: False)
    assert set(lossless_bits(scene.hr)) == {"webp_bits"}


def test_importance_weights_are_the_definition(tiny_model, save_picture, tmp_path):
    """-log of the mean of p(hr, z) / q(z), over latents that were drawn twice."""
    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", 48, 32))
    scene = load_scene(pair, Protocol.standard, 4)
    score = partial(elbo_bits, tiny_model, scene, seed=3, runtime=CPU)
    nats = 3 * 48 * 32 * math.log(2)
    log_weights = []
    for sample in range(2):
        field = NoiseField(seed=3, sample=sample)

        def noise(shape, field=field):
            rows, columns = (torch.arange(n // shape.cell, dtype=torch.int32) for n in (32, 48))
            drawn = field.normal(shape.layer, rows, columns, shape.channels)
            return drawn.permute(2, 0, 1).unsqueeze(0)

        hr, lr = scene.hr.unsqueeze(0) / 127.5 - 1, scene.lr.unsqueeze(0) / 255
        with drawn_rates(tiny_model), torch.inference_mode():
            elbo, _ = tiny_model.elbo_and_mean(hr, lr, noise)
        log_weights.append(-(elbo.distortion + elbo.rate.sum(0)).double())
    expected = -torch.logsumexp(torch.cat(log_weights), 0) + math.log(2)
    assert score(weights=2)["bits_iw"] == pytest.approx(expected.item() / nats, rel=1e-6)
    assert score(weights=1)["bits_iw"] == pytest.approx(-log_weights[0].item() / nats, rel=1e-6)
    assert score(weights=2)["bits_per_dim"] == score()["bits_per_dim"]
    assert "bits_iw" not in score()


def test_drawn_rates_have_the_kl_as_their_mean(tiny_model):
    hr, lr = torch.zeros(256, 3, 16, 16), torch.full((256, 3, 4, 4), 0.5)
    normals = [
        torch.randn(256, s.channels, 16 // s.cell, 16 // s.cell) for s in tiny_model.latent_shapes
    ]
    elbo, _ = tiny_model.elbo_and_mean(hr, lr, lambda s: normals[s.layer])
    with drawn_rates(tiny_model):
        drawn, _ = tiny_model.elbo_and_mean(hr, lr, lambda s: normals[s.layer])
    gap = (drawn.rate - elbo.rate).mean(1)
    assert (gap.abs() < 5 * (drawn.rate - elbo.rate).std(1) / 16 + 1e-6).all()
    assert (drawn.rate - elbo.rate).abs().max() > 0.1


def test_elbo_bits_are_the_training_loss(tiny_model, save_picture, tmp_path):
    from vdsr_cli.training.loop import vdvae_sr_losses

    pair = Pair(name="x", hr=save_picture(tmp_path / "x.png", 32, 48))
    scene = load_scene(pair, Protocol.standard, 4)

    def noise(shape):
        rows, columns = (torch.arange(n // shape.cell, dtype=torch.int32) for n in (48, 32))
        drawn = NoiseField(seed=7).normal(shape.layer, rows, columns, shape.channels)
        return drawn.permute(2, 0, 1).unsqueeze(0)

    losses = vdvae_sr_losses(tiny_model, scene.hr.unsqueeze(0), scene.lr.unsqueeze(0), noise, 0.0)
    bits = elbo_bits(tiny_model, scene, seed=7, runtime=CPU)
    assert bits["distortion_bits"] == pytest.approx(losses.distortion.item(), rel=1e-5)
    assert bits["rate_bits"] == pytest.approx(losses.rate.item(), rel=1e-5)


def test_elbo_bits_of_a_picture_below_a_cell(tiny_model):
    scene = Scene(
        name="x",
        hr=torch.zeros(3, 12, 12, dtype=torch.uint8),
        lr=torch.zeros(3, 3, 3, dtype=torch.uint8),
        scale=4,
        source_size=(12, 12),
    )
    assert elbo_bits(tiny_model, scene, seed=0, runtime=CPU) == {}


# Figures and files


def picture_score(picture: str, seed: int | None, **scores: float) -> PictureScore:
    return PictureScore(
        dataset="d",
        picture=picture,
        method="m",
        temperature=0.5,
        seed=seed,
        megapixels=scores.pop("megapixels", 1.0),
        scores=scores,
    )


def test_means_over_pictures_then_seeds():
    row = mean_row(
        [
            picture_score("a", 0, psnr_y=30.0, lr_psnr_worst=50.0),
            picture_score("a", 1, psnr_y=32.0, lr_psnr_worst=51.0),
            picture_score("b", 0, psnr_y=20.0, lr_psnr_worst=40.0),
            picture_score("b", 1, psnr_y=22.0, lr_psnr_worst=45.0),
        ]
    )
    assert row.scores["psnr_y"].mean == 26 and row.scores["psnr_y"].std == math.sqrt(2)
    assert row.scores["lr_psnr_worst"].mean == 40
    assert (row.pictures, row.seeds) == (2, (0, 1))


def test_an_exact_picture_makes_no_mean_infinite():
    """An LR error of nothing counts as nothing; a picture met exactly is left out of PSNR."""
    exact = picture_score("a", 0, psnr_y=math.inf, lr_psnr=math.inf)
    other = picture_score("b", 0, psnr_y=30.0, lr_psnr=60.0)
    row = mean_row([exact, other])
    assert row.scores["psnr_y"].mean == 30
    assert row.scores["lr_psnr"].mean == pytest.approx(60 + 10 * math.log10(2))
    row = mean_row([exact])
    assert row.scores["psnr_y"].mean == row.scores["lr_psnr"].mean == math.inf


def test_an_exact_seed_makes_no_mean_infinite():
    row = mean_row([picture_score("a", 0, lr_psnr=math.inf), picture_score("a", 1, lr_psnr=50.0)])
    assert row.scores["lr_psnr"].mean == pytest.approx(50 + 10 * math.log10(2))


def test_lr_psnr_without_the_projection_stands_beside_it(photos, tiny):
    report = run_bench(BenchRequest(paths=(photos,)), [tiny], CPU, Events())
    free = replace(BenchRequest(paths=(photos,)), upscale=UpscaleRequest(consistency=False))
    unprojected = run_bench(free, [tiny], CPU, Events())
    bicubic, mine = report.rows()
    assert "lr_psnr_raw" not in bicubic.scores
    assert mine.scores["lr_psnr_raw"] == unprojected.rows()[1].scores["lr_psnr"]
    assert mine.scores["lr_psnr_raw"].mean < mine.scores["lr_psnr"].mean
    assert "lr_psnr_raw" not in unprojected.rows()[1].scores


def test_speed_is_weighted_by_size():
    row = mean_row(
        [
            picture_score("a", 0, seconds_per_megapixel=1.0, megapixels=3.0),
            picture_score("b", 0, seconds_per_megapixel=5.0, megapixels=1.0),
        ]
    )
    assert row.scores["seconds_per_megapixel"].mean == 2


def test_numbers_that_json_does_not_know():
    assert json_number(math.inf) == "inf" and json_number(math.nan) is None
    assert json_number(1 / 3) == 0.333333


def test_the_worst_pictures_first():
    columns = {column.key: column for column in COLUMNS}
    scores = [
        picture_score(name, 0, psnr_y=p, lpips_alex=p)
        for name, p in zip("abc", (3, 1, 2), strict=True)
    ]
    names = [name for name, _ in worst_pictures(scores, columns["psnr_y"], 2)]
    assert names == ["b", "c"]
    names = [name for name, _ in worst_pictures(scores, columns["lpips_alex"], 2)]
    assert names == ["a", "c"]
    again = [picture_score("b", 1, psnr_y=2), picture_score("d", 0, psnr_y=math.nan)]
    (worst,) = worst_pictures([*scores, *again], columns["psnr_y"], 1)
    assert worst[0] == "b" and worst[1].scores["psnr_y"].mean == 1.5


@pytest.mark.skipif(sys.platform != "linux", reason="names that are no text")
def test_names_that_are_no_text_are_escaped(photos, tiny, tmp_path):
    shutil.copy(photos / "a.png", photos / os.fsdecode(b"p\xff.png"))
    report = score(BenchRequest(paths=(photos,), temperatures=(0.0, 0.5)), tiny)
    write_csv(report, tmp_path / "scores.csv")
    assert "p\\udcff" in (tmp_path / "scores.csv").read_text()


def test_csv_and_plots(photos, tiny, tmp_path):
    report = score(BenchRequest(paths=(photos,), temperatures=(0.0, 0.5, 1.0)), tiny)
    write_csv(report, tmp_path / "deep" / "scores.csv")
    with (tmp_path / "deep" / "scores.csv").open(newline="") as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == len(report.pictures) == 8
    assert float(lines[0]["psnr_y"]) == pytest.approx(report.pictures[0].scores["psnr_y"], abs=1e-5)
    figure = temperature_figure(report)
    save_figure(tmp_path / "curve.svg", figure)
    svg = ElementTree.parse(tmp_path / "curve.svg").getroot()
    texts = [e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")]
    assert {"PSNR Y", "SSIM Y", "temperature", "tiny, photos"} <= set(texts)
    save_figure(tmp_path / "curve.png", figure)
    with Image.open(tmp_path / "curve.png") as image:
        assert image.size == (2 * figure.width, 2 * figure.height)


def test_nothing_to_plot(photos):
    with pytest.raises(InputError, match="no curve"):
        temperature_figure(score(BenchRequest(paths=(photos,))))


def test_the_published_file():
    keys = {column.key for column in COLUMNS} | {"dists"}
    sets = load_known_sets()
    assert [s.name for s in sets][:2] == ["Set5", "Set14"]
    for known_set in sets:
        assert known_set.url and known_set.terms
        assert len(known_set.sizes) in (0, known_set.pictures)
        for protocol in ("standard", "paper", "paper-64", "article", "diverse"):
            for row in published_rows(known_set.name, protocol, 4):
                assert row.source and set(row.scores) <= keys
                assert row.protocol == protocol
    assert not published_rows("Set5", "standard", 2)
    methods = [row.label for row in published_rows("Set5", "paper", 4)]
    assert methods == ["bicubic", "EDSR", "ESRGAN", "VDVAE-SR t=0.2", "VDVAE-SR t=0.8"]
