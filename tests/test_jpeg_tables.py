"""Quantisation tables: what quality they stand for."""

from io import BytesIO

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vdsr_cli.images import read_picture
from vdsr_cli.jpeg_tables import luma_table, quality_of

STEPS = st.lists(st.integers(1, 255), min_size=64, max_size=64)


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 55, 75, 86, 95, 100])
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_the_quality_of_a_file_is_told_exactly(quality, mode):
    file = BytesIO()
    Image.effect_noise((16, 16), 50).convert(mode).save(file, "JPEG", quality=quality)
    table = read_picture(BytesIO(file.getvalue())).jpeg_table
    assert table == luma_table(quality)
    assert quality_of(table) == quality


def test_every_quality_has_a_table_of_its_own():
    assert [quality_of(luma_table(quality)) for quality in range(1, 101)] == [*range(1, 101)]


@given(table=STEPS, coarser=STEPS)
def test_no_quality_rises_with_the_steps(table, coarser):
    larger = [max(steps) for steps in zip(table, coarser, strict=True)]
    assert 1 <= quality_of(larger) <= quality_of(table) <= 100


def test_other_formats_have_no_table(save_picture, tmp_path):
    for name in ("a.png", "a.webp"):
        assert read_picture(save_picture(tmp_path / name)).jpeg_table is None
