"""benchmarks/flat.py: its figures of errors that are known."""

import pytest
import torch


@pytest.fixture(scope="module")
def script(load_script):
    return load_script("benchmarks/flat.py")


@pytest.fixture
def errors(script):
    """No errors of one seed's pictures, 64x64."""
    return [torch.zeros(3, 64, 64) for _ in range(len(script.COLOURS) + len(script.RAMPS))]


def chequered(level: float) -> torch.Tensor:
    """(16, 16), plus and minus the level: its deviation is the level, its mean 0."""
    cells = torch.arange(16)
    return level * (1 - 2 * ((cells.unsqueeze(1) + cells) % 2)).float()


def test_one_rough_block_is_the_deviation_and_no_mean(script, errors):
    errors[3][:, 16:32, 32:48] = chequered(3.0)
    found = script.findings(errors, pictures=len(errors))
    assert found.deviation == pytest.approx(3.0, rel=0.01)
    assert (found.typical, found.white, found.black) == (0, 0, 0)
    assert found.mean == pytest.approx(0, abs=1e-6)
    assert found.predicts is None


def test_an_offset_of_one_colour_is_a_mean_and_no_deviation(script, errors):
    errors[1][2] = 2.0
    found = script.findings(errors, pictures=len(errors))
    assert (found.mean, found.black, found.white) == (2, 2, 0)
    assert found.deviation == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("scale, predicts", [(1.0, 1.0), (-1.0, -1.0)])
def test_a_stain_in_two_pictures_predicts(script, errors, scale, predicts):
    strengths = torch.linspace(1, 3, 16)
    for picture, factor in ((3, 1.0), (4, scale)):
        rough = torch.stack([chequered(2 + factor * (s.item() - 2)) for s in strengths])
        errors[picture][:] = rough.view(4, 4, 16, 16).permute(0, 2, 1, 3).reshape(64, 64)
    assert script.findings(errors, pictures=len(errors)).predicts == pytest.approx(predicts)


def test_gradients_run_from_end_to_end(script):
    down = script.gradient(script.SKY, 8, turn=0.0)
    assert torch.equal(down[:, 0, 0], torch.tensor(script.SKY[0]).float())
    assert torch.equal(down[:, -1, 0], torch.tensor(script.SKY[1]).float())
    assert torch.equal(script.gradient(script.SKY, 8, turn=1.0), down.transpose(1, 2))
