"""Which layer decides what: the distances of appendix A against a computation by hand."""

import itertools
import json
import math
from dataclasses import asdict, replace
from xml.etree import ElementTree

import pytest
import torch
from published_vdvae import SMALLEST

from vdsr_cli.consistency import degrade
from vdsr_cli.errors import UsageError
from vdsr_cli.figures.plot import Panel, draw_figure, to_svg
from vdsr_cli.models.compact import CompactConfig, Level
from vdsr_cli.models.compact_prior import CompactVDVAE
from vdsr_cli.models.dmol import dmol_mean
from vdsr_cli.models.registry import architecture_of
from vdsr_cli.models.vdvae import VDVAE
from vdsr_cli.sampling.noise import NoiseField
from vdsr_cli.services.layers import (
    LayerDistances,
    LayersRequest,
    fixed_counts,
    layers_figure,
    measure_codes,
    picture_size,
    summarise,
)
from vdsr_cli.weights import Checkpoint, write_safetensors

CONFIG = CompactConfig(
    scale=4,
    levels=(
        Level(cell=8, width=8, blocks=1, latent_channels=2, lr_blocks=1),
        Level(cell=4, width=8, blocks=2, latent_channels=2, lr_blocks=1),
        Level(cell=2, width=4, blocks=1, latent_channels=1),
    ),
)
REQUEST = LayersRequest(scales=(1, 2, 4), codes=3, draws=4, size_px=16, seed=5)


def randomised(model, seed=0):
    """The model with random weights, so that every layer reaches the pixels."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            fan = parameter[0].numel() if parameter.dim() > 1 else 25
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.7 / fan**0.5)
    return model.eval().requires_grad_(False)


@pytest.fixture(scope="module")
def prior():
    return randomised(CompactVDVAE(CONFIG))


@pytest.fixture(scope="module")
def published():
    """A model of OpenAI's shape with pictures of 8x8."""
    layers = {"enc_blocks": "8x1,8d2,4x1,4d4,1x1", "dec_blocks": "1x1,4m1,8m4,8x1"}
    return randomised(VDVAE(replace(SMALLEST, image_size=8, width=8, **layers)))


def measured(prior, request) -> LayerDistances:
    return summarise(prior, request, list(measure_codes(prior, request)))


def picture_by_hand(prior, request, code, fixed, draw):
    """One picture: the code's noise in the first layers, its own in the others."""
    first = code * request.draws

    def noise(shape):
        sample = first if shape.layer < fixed else first + draw
        place = torch.arange(request.size_px // shape.cell, dtype=torch.int32)
        field = NoiseField(seed=request.seed, sample=sample)
        return field.normal(shape.layer, place, place, shape.channels).permute(2, 0, 1)[None]

    size = (request.size_px, request.size_px)
    if isinstance(prior, VDVAE):
        return dmol_mean(prior.sample(1, size, noise, request.temperature))[0]
    return prior.sample(1, size, noise, request.temperature)[0, :3].clamp(-1, 1)


def distance_by_hand(prior, request, fixed, scale):
    """Equation 18, pair by pair, as a mean."""
    distances = []
    for code in range(request.codes):
        pictures = [
            picture_by_hand(prior, request, code, fixed, draw) for draw in range(request.draws)
        ]
        small = [degrade(127.5 * (picture + 1), scale) for picture in pictures]
        distances += [
            torch.linalg.vector_norm(one - other).item() / math.sqrt(one.numel())
            for one, other in itertools.combinations(small, 2)
        ]
    return sum(distances) / len(distances)


@pytest.mark.parametrize("name", ["prior", "published"])
def test_equals_a_computation_pair_by_pair(name, request):
    model = request.getfixturevalue(name)
    size = 16 if name == "prior" else 8
    asked = LayersRequest(scales=(1, 2), codes=2, draws=3, size_px=size, temperature=0.7, seed=5)
    distances = measured(model, asked)
    assert distances.fixed == (0, 1, 2, 3, 4)
    for scale in asked.scales:
        for fixed, value in distances.curve(scale):
            by_hand = distance_by_hand(model, asked, fixed, scale)
            assert value == pytest.approx(by_hand, rel=1e-4, abs=1e-4)
        assert distances.curve(scale)[0][1] > 1


def test_with_nothing_fixed_it_is_the_distance_of_independent_samples(prior):
    pictures = []
    for sample in range(REQUEST.draws):
        alone = LayersRequest(draws=REQUEST.draws, size_px=16, seed=5)
        pictures.append(picture_by_hand(prior, alone, 0, 0, sample))
    pairs = itertools.combinations(pictures, 2)
    independent = [127.5 * (one - other).square().mean().sqrt().item() for one, other in pairs]
    first_code = next(measure_codes(prior, REQUEST))
    assert first_code[0, 0].item() == pytest.approx(sum(independent) / len(independent), rel=1e-5)


@pytest.mark.parametrize("name", ["prior", "published"])
def test_all_layers_decide_the_mean_but_not_drawn_pixels(name, request):
    model = request.getfixturevalue(name)
    size = 16 if name == "prior" else 8
    mean = measured(model, LayersRequest(scales=(1, 2), codes=2, draws=3, size_px=size))
    assert mean.mean[-1] == (0, 0)
    drawn = LayersRequest(scales=(1, 2), codes=2, draws=3, size_px=size, output="sample")
    full, reduced = measured(model, drawn).mean[-1]
    assert full > reduced > 0


class Additive(CompactVDVAE):
    """A prior whose picture is the sum of its layers' noises, each as wide as its cell."""

    STEP = 0.01

    def sample(self, batch, size, noise, temperature=1.0):
        picture = torch.zeros(batch, 3, *size)
        for shape in self.latent_shapes:
            wide = noise(shape)[:, :1].repeat_interleave(shape.cell, 2)
            picture += self.STEP * temperature * wide.repeat_interleave(shape.cell, 3)
        return torch.cat([picture, torch.zeros_like(picture)], 1)


def test_falls_with_every_layer_as_it_must():
    """Two draws differ by sqrt(2) times the deviation of each layer that is not fixed."""
    request = LayersRequest(scales=(1, 8), codes=8, draws=4, size_px=128)
    distances = measured(Additive(CONFIG), request)
    layers = len(CONFIG.latent_shapes)
    for fixed, value in distances.curve(1):
        expected = 127.5 * Additive.STEP * math.sqrt(2 * (layers - fixed))
        assert value == pytest.approx(expected, rel=0.05)
    for scale in (1, 8):
        values = [value for _, value in distances.curve(scale)]
        assert all(more > less for more, less in itertools.pairwise(values))
    # The finest layer is grain: reducing by 8 leaves little of it, but most of the coarsest.
    finest = [distances.curve(scale)[layers - 1][1] for scale in (1, 8)]
    assert finest[1] < 0.25 * finest[0]
    assert distances.error is not None
    assert 0 < distances.error[0][0] < 0.05 * distances.mean[0][0]


def test_temperature_zero_leaves_nothing_open(prior):
    distances = measured(prior, LayersRequest(codes=1, draws=2, size_px=16, temperature=0.0))
    # Two pictures of one batch may differ by float32's rounding, on a scale of 255.
    assert max(value for row in distances.mean for value in row) < 255 * 1e-6
    assert distances.error is None
    assert to_svg(layers_figure(distances))


def test_more_codes_keep_the_first_ones(prior):
    two = LayersRequest(scales=(1,), codes=2, draws=2, size_px=16)
    three = LayersRequest(scales=(1,), codes=3, draws=2, size_px=16)
    for one, other in zip(measure_codes(prior, two), measure_codes(prior, three), strict=False):
        assert torch.equal(one, other)


def test_counts_end_at_all_layers():
    assert fixed_counts(4, 1) == (0, 1, 2, 3, 4)
    assert fixed_counts(5, 2) == (0, 2, 4, 5)
    assert fixed_counts(4, 9) == (0, 4)


def test_what_the_curve_says():
    distances = LayerDistances(
        scales=(1, 4),
        fixed=(0, 1, 2, 3, 4),
        cells=(8, 4, 4, 2),
        mean=((40.0, 30.0), (20.0, 0.4), (10.0, 0.6), (5.0, 0.4), (0.7, 0.2)),
        error=None,
    )
    assert distances.visible_layers(4) == 3 and distances.left_open(4) == 0.4
    assert distances.visible_layers(1) == 4 and distances.left_open(1) == 0.7
    assert distances.negligible_from(4) == 3, "below 0.5 once is not enough"
    assert distances.negligible_from(1) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"size_px": 20}, "a multiple of 8"), ({"scales": (3,), "size_px": 16}, "3 does not divide")],
)
def test_refuses_sizes_that_do_not_fit(prior, changes, message):
    with pytest.raises(UsageError, match=message):
        picture_size(prior, LayersRequest(**changes))


def test_a_published_prior_has_one_size(published):
    assert picture_size(published, LayersRequest(scales=(1,))) == 8
    with pytest.raises(UsageError, match="a side of 8"):
        picture_size(published, LayersRequest(scales=(1,), size_px=16))


def test_a_logarithmic_panel_has_round_ticks_and_no_zero():
    curves = {"a": [(0.0, 50.0), (1.0, 0.5), (2.0, 0.0)]}
    panel = Panel(title="t", x_title="x", curves=curves, is_log=True, marks={1.0: "here"})
    svg = ElementTree.fromstring(to_svg(draw_figure([panel])))
    texts = {e.text for e in svg.iter("{http://www.w3.org/2000/svg}text")}
    assert {"0.5", "1", "2", "5", "10", "20", "50", "here", "a"} <= texts
    curve = next(e for e in svg if e.get("stroke-width") == "2")
    assert len(curve.get("points").split()) == 2


@pytest.fixture
def prior_path(tmp_path, prior):
    path = tmp_path / "prior.safetensors"
    state = dict(prior.state_dict())
    write_safetensors(
        path,
        Checkpoint(
            architecture=architecture_of(prior).name,
            config=asdict(CONFIG),
            state=state,
            metadata={},
        ),
    )
    return path


def test_the_command(vdsr, prior_path, prior, tmp_path):
    asked = ["layers", "-m", prior_path, "--scales", "1,4", "-n", 2, "--draws", 3, "--size", 16]
    asked += ["--device", "cpu", "--dtype", "float32"]
    ended = vdsr(*asked, "--json", "--plot", tmp_path / "curve.svg")
    assert (ended.code, ended.err) == (0, "")
    document = json.loads(ended.out)
    request = LayersRequest(scales=(1, 4), codes=2, draws=3, size_px=16)
    curve = measured(prior, request).curve(4)
    got = document["scales"]["4"]
    assert got["distance"] == pytest.approx([value for _, value in curve], rel=1e-5)
    assert document["fixed"] == [0, 1, 2, 3, 4] and document["cells"] == [8, 4, 4, 2]
    assert got["visible_layers"] == 3 and got["left_open"] == got["distance"][3]
    assert (tmp_path / "curve.svg").read_bytes().startswith(b"<svg")
    table = vdsr(*asked).out.decode().splitlines()
    assert table[0].split() == ["fixed", "cell", "x1", "x4"] and len(table) == 1 + 5 + 2
    assert table[4].split() == [
        "3",
        "4",
        *(f"{document['scales'][s]['distance'][3]:.3f}" for s in "14"),
    ]
    assert table[-1].startswith("x4: 3 layers have cells of 4 and more and leave ")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--scales", "1,a"], "--scales 1,a"),
        (["--scales", "0"], "--scales 0"),
        (["--plot", "curve.pdf"], ".svg"),
        (["--size", "12"], "multiple of 8"),
    ],
)
def test_the_command_refuses(vdsr, prior_path, options, message):
    ended = vdsr("layers", "-m", prior_path, *options)
    assert ended.code == 2 and message in ended.err and not ended.out


def test_a_model_that_upscales_is_no_prior(vdsr, tiny_path):
    ended = vdsr("layers", "-m", tiny_path)
    assert ended.code == 2 and "not an unconditional prior" in ended.err
