"""``--model auto``: which model a picture gets, and when models are loaded."""

import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from vdsr_cli.config import TargetSize
from vdsr_cli.errors import WeightsError
from vdsr_cli.images import Picture, read_picture
from vdsr_cli.loading import LoadedModel
from vdsr_cli.services.auto import AutoBySize, auto_sampler, auto_upscaler

STREET = Path(__file__).parents[1] / "data" / "street.png"
SCALES = {"vdvae-sr-x2": 2, "vdvae-sr-x8": 8}


@pytest.fixture
def clean():
    return read_picture(STREET)


@pytest.fixture
def degraded():
    file = BytesIO()
    with Image.open(STREET) as street:
        street.convert("RGB").save(file, "JPEG", quality=40)
    return read_picture(BytesIO(file.getvalue()))


class Model:
    """As much of a model as is asked for here."""

    def __init__(self, scale):
        self.scale = scale


@pytest.fixture
def load():
    """Loads by name; ``load.names`` are those that were loaded."""

    def loaded(name):
        loaded.names.append(name)
        model = Model(SCALES.get(name, 4))
        return LoadedModel(name=name, model=model, record=None, card={}, parameters=0)

    loaded.names = []
    return loaded


@pytest.mark.parametrize(("width", "name"), [(2, "vdvae-sr-x2"), (2.0004, "vdvae-sr-x4")])
def test_a_size_just_above_a_scale_is_of_the_next(load, clean, width, name):
    wide = Picture(rgb=clean.rgb.repeat(1, 1, 1, 2500 // clean.width + 1))
    size = TargetSize(width=math.ceil(width * wide.width))
    assert AutoBySize(size, load).choose(wide).loaded.name == name


def test_the_second_model_is_loaded_when_a_picture_needs_it_and_kept(load, clean, degraded):
    models = auto_upscaler(4, load)
    chosen = [models.choose(picture).loaded.name for picture in (clean, clean)]
    assert chosen == ["vdvae-sr-x4"] * 2 and load.names == ["vdvae-sr-x4"]
    chosen = [models.choose(picture).loaded.name for picture in (degraded, clean, degraded)]
    assert chosen == ["vdvae-sr-x4-real", "vdvae-sr-x4", "vdvae-sr-x4-real"]
    assert load.names == ["vdvae-sr-x4", "vdvae-sr-x4-real"]


@pytest.mark.parametrize(
    ("scale", "name", "how"),
    [
        (1.5, "vdvae-sr-x2", "JPEG at quality 40 (x1.5 by way of its x4)"),
        (2, "vdvae-sr-x2", "JPEG at quality 40 (x2 by way of its x4)"),
        (4, "vdvae-sr-x4", "JPEG at quality 40"),
        (8, "vdvae-sr-x8", "JPEG at quality 40 (x8 by way of its x4, twice)"),
        (16, "vdvae-sr-x4", "JPEG at quality 40 (x16 by way of its x4, twice)"),
    ],
)
def test_every_scale_has_a_model_for_either_kind(load, clean, degraded, scale, name, how):
    models = auto_upscaler(scale, load)
    assert models.choose(clean).loaded.name == name
    choice = models.choose(degraded)
    assert (choice.loaded.name, choice.reason) == ("vdvae-sr-x4-real", how)


@pytest.mark.parametrize(
    ("scale", "clean_name", "degraded_name", "words"),
    [
        (4, "cvdvae-x4", "vdvae-sr-x4-real", "JPEG at quality 40"),
        (2, "vdvae-sr-x2", "vdvae-sr-x2", "its scale: for JPEG at quality 40 there is no model"),
    ],
)
def test_samples_come_at_the_models_own_scale(
    load, clean, degraded, scale, clean_name, degraded_name, words
):
    models = auto_sampler(scale, load)
    assert models.scale == scale
    assert models.choose(clean).loaded.name == clean_name
    choice = models.choose(degraded)
    assert choice.loaded.name == degraded_name and choice.reason.startswith(words)


def test_the_choice_is_that_of_the_pixels_whatever_their_depth(load, clean):
    file = BytesIO()
    rough = np.random.default_rng(0).normal(0, 20 * 257, (256, 256))
    deep = clean.rgb[0, 0].numpy() * 65535 + rough
    Image.fromarray(deep.clip(0, 65535).astype(np.uint16)).save(file, "PNG")
    choice = auto_upscaler(4, load).choose(read_picture(BytesIO(file.getvalue())))
    assert choice.loaded.name == "vdvae-sr-x4-real" and "noise of 2" in choice.reason


def test_what_loading_raises_is_told(clean):
    def load(name):
        raise WeightsError(f"{name} is damaged")

    with pytest.raises(WeightsError, match="vdvae-sr-x4 is damaged"):
        auto_upscaler(4, load)
