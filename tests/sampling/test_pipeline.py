"""The one way from a picture to rows of pixels: every use case gives the same bytes."""

import io
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from loaded import CPU
from PIL import Image

from vdsr_cli.bench.data import Pair, Protocol, load_scene
from vdsr_cli.bench.methods import ModelMethod
from vdsr_cli.consistency import degrade
from vdsr_cli.diverse.records import DiverseRequest, OutputNames
from vdsr_cli.diverse.run import sample_diverse
from vdsr_cli.images import Metadata, Picture, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.paths import Source
from vdsr_cli.sampling.engine import SamplingSettings
from vdsr_cli.sampling.pipeline import draw_canvases, draw_rows, plan_upscale
from vdsr_cli.services.serve import DrawRequest, draw
from vdsr_cli.services.upscale import UpscaleRequest, upscale_file

SETTINGS = SamplingSettings(temperature=0.8, tile=16, overlap=4, seed=3)


@pytest.fixture(scope="module")
def loaded(tiny_model) -> LoadedModel:
    card = {"degradation": "bicubic"}
    return LoadedModel(name="tiny", model=tiny_model, record=None, card=card, parameters=1)


def save(path, mode: str, height: int = 30, width: int = 22):
    """A picture with black and white parts, where the projection clips."""
    rough = torch.rand(1, len(mode), 6, 5, generator=torch.Generator().manual_seed(1))
    smooth = F.interpolate(rough * 2 - 0.5, size=(height, width), mode="bicubic").clamp(0, 1)[0]
    levels = (smooth * 255).byte().permute(1, 2, 0).numpy()
    Image.fromarray(levels.squeeze() if mode == "L" else levels).save(path)
    return path


def assert_same_but_for_sums(levels, expected):
    """Several samples are one batch, which several threads add up in another order."""
    difference = np.abs(levels.astype(int) - expected)
    assert difference.max() <= 1 and (difference > 0).mean() < 0.01


@pytest.mark.parametrize("mode", ["RGB", "L", "RGBA"])
@pytest.mark.parametrize("consistency", [True, False])
def test_upscale_is_sample_0_of_any_number(loaded, tmp_path, mode, consistency):
    source = Source(path=save(tmp_path / "a.png", mode))
    request = UpscaleRequest(settings=SETTINGS, consistency=consistency)
    one = tmp_path / "one.png"
    result = upscale_file(
        source, one, loaded, request, CPU, stdin=io.BytesIO(), stdout=io.BytesIO()
    )
    assert result.status == "done", result.error
    for samples in (1, 3):
        names = OutputNames(base=tmp_path / str(samples) / "a.png")
        wanted = DiverseRequest(samples=samples, settings=SETTINGS, consistency=consistency)
        done = sample_diverse(source, names, loaded, wanted, CPU, stdin=io.BytesIO())
        [first, *_] = done.sets[0].pictures
        written = tmp_path / str(samples) / "a_s0.png"
        if samples == 1:
            assert one.read_bytes() == written.read_bytes(), first
        assert_same_but_for_sums(np.asarray(Image.open(written)), np.asarray(Image.open(one)))


def test_serve_and_bench_draw_the_same_picture(loaded, tmp_path):
    path = save(tmp_path / "a.png", "RGB")
    settings = SamplingSettings(temperature=0.8, seed=3, batch_size=4)
    picture = read_picture(path)
    plan = plan_upscale(picture, loaded, settings, CPU, scale=4)
    [canvas] = draw_canvases(picture, plan, CPU)
    served = draw(
        picture, loaded, DrawRequest(title="a", samples=2, seed=3), CPU, address="/"
    ).files["s0.png"]
    assert_same_but_for_sums(np.asarray(Image.open(io.BytesIO(served))), canvas.levels())

    Image.fromarray(canvas.levels()).save(tmp_path / "hr.png")
    scene = load_scene(Pair(name="a", hr=tmp_path / "hr.png", lr=path), Protocol.diverse, 4)
    request = UpscaleRequest(settings=settings)
    for samples in (1, 2):
        method = ModelMethod(name="m", loaded=loaded, request=request, runtime=CPU, samples=samples)
        scored = method.draw("d", scene).samples[0].permute(1, 2, 0).numpy()
        assert_same_but_for_sums(scored, canvas.levels())


FAITHFUL = [(3, 8, 75), (4, 8, 79), (16, 8, 79), (3, 16, 115), (4, 16, 115)]


@pytest.mark.parametrize(("scale", "bit_depth", "least"), FAITHFUL)
def test_what_is_written_degrades_to_the_input(loaded, scale, bit_depth, least):
    generator = torch.Generator().manual_seed(2)
    rough = torch.rand(1, 3, 5, 4, generator=generator) * 0.8 + 0.1
    lr = F.interpolate(rough, size=(20, 14), mode="bicubic").clamp(0, 1)
    picture = Picture(rgb=lr, metadata=Metadata(bit_depth=bit_depth))
    plan = plan_upscale(picture, loaded, SETTINGS, CPU, scale=scale)
    [canvas] = draw_canvases(picture, plan, CPU)
    written = torch.from_numpy(canvas.levels().astype(np.float64)).permute(2, 0, 1)[None]
    mse = (degrade(written / (2**bit_depth - 1), scale) - lr).square().mean().item()
    assert -10 * np.log10(mse) > least


def test_samples_of_two_passes_are_those_drawn_alone(loaded):
    picture = Picture(rgb=torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(3)))
    several = replace(SETTINGS, samples=(0, 1))
    told: list[int] = []
    plan = plan_upscale(picture, loaded, several, CPU, scale=8)
    together = draw_canvases(picture, plan, CPU, on_tiles=told.append)
    assert sum(told) == plan.tiles
    for index, canvas in enumerate(together):
        alone = plan_upscale(picture, loaded, replace(SETTINGS, samples=(index,)), CPU, scale=8)
        [one] = draw_canvases(picture, alone, CPU)
        assert np.abs(one.levels().astype(int) - canvas.levels()).max() <= 1


def test_colours_lie_within_their_alpha(loaded):
    alpha = torch.rand(1, 1, 12, 12, generator=torch.Generator().manual_seed(4))
    rgb = torch.rand(1, 3, 12, 12, generator=torch.Generator().manual_seed(5)) * alpha
    plan = plan_upscale(Picture(rgb=rgb, alpha=alpha), loaded, SETTINGS, CPU, scale=4)
    for rows in draw_rows(Picture(rgb=rgb, alpha=alpha), plan, CPU):
        assert rows.alpha is not None
        assert rows.rgb.min() >= 0 and (rows.rgb <= rows.alpha).all() and rows.alpha.max() <= 1


@pytest.mark.parametrize("scale", [4, 3, 16])
def test_what_is_empty_or_opaque_all_around_stays_so(loaded, scale):
    alpha = torch.zeros(1, 1, 24, 20)
    alpha[..., 8:20, 6:] = 1
    rgb = torch.rand(1, 3, 24, 20, generator=torch.Generator().manual_seed(5)) * alpha
    picture = Picture(rgb=rgb, alpha=alpha)
    plan = plan_upscale(picture, loaded, SETTINGS, CPU, scale=scale)
    made = torch.cat([rows.alpha for rows in draw_rows(picture, plan, CPU)], dim=1)[0]
    reach = 5 * scale  # two LR pixels, as far again in a second pass, and one of a resize
    outside, inside = (
        torch.ones_like(made, dtype=torch.bool),
        torch.zeros_like(made, dtype=torch.bool),
    )
    outside[8 * scale - reach : 20 * scale + reach, 6 * scale - reach :] = False
    inside[8 * scale + reach : 20 * scale - reach, 6 * scale + reach :] = True
    assert outside.any() and inside.any()
    assert made[outside].max() == 0
    torch.testing.assert_close(made[inside].min(), torch.tensor(1.0), rtol=0, atol=1e-6)
