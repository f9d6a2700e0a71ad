"""The metrics: against their definitions, other people's packages, and published figures."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from vdsr_cli.bench.data import Protocol, discover, load_scenes
from vdsr_cli.consistency import degrade_8bit
from vdsr_cli.errors import WeightsError
from vdsr_cli.images import read_picture
from vdsr_cli.images.resize import bicubic
from vdsr_cli.metrics import (
    DISTS,
    LPIPS,
    Brisque,
    InceptionFeatures,
    Niqe,
    average_pairwise,
    frechet_distance,
    lr_psnr,
    luma,
    mse_unit,
    ntire_diversity,
    pairwise_rms,
    psnr_rgb,
    psnr_y,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.backbones import BACKBONES
from vdsr_cli.metrics.naturalness import _fit, _fit_symmetric, normalised

SHARED = Path(__file__).parents[3] / "shared"


def random_picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (3, height, width), generator=generator).to(torch.uint8)


def street() -> torch.Tensor:
    pixels = read_picture(Path(__file__).parents[1] / "data" / "street.png").rgb[0]
    return pixels.mul(255).round().to(torch.uint8)


def test_luma_of_black_white_and_primaries():
    picture = torch.tensor([[0, 255, 255, 0, 0], [0, 255, 0, 255, 0], [0, 255, 0, 0, 255]])
    expected = [16.0, 235.0, 81.481, 144.553, 40.966]
    assert luma(picture.view(3, 1, 5).to(torch.uint8))[0].tolist() == pytest.approx(expected)


@pytest.mark.parametrize("difference", [1, 7, 100])
def test_psnr_of_a_constant_difference(difference):
    one = torch.full((3, 20, 20), 30, dtype=torch.uint8)
    other = one + difference
    expected = 20 * math.log10(255 / difference)
    assert psnr_rgb(one, other, shave=2) == pytest.approx(expected)
    assert psnr_y(one, other, shave=2) == pytest.approx(expected + 20 * math.log10(255 / 219))


def test_equal_pictures():
    picture = random_picture(24, 30)
    assert psnr_y(picture, picture, shave=4) == psnr_rgb(picture, picture, shave=0) == math.inf
    assert ssim_y(picture, picture, shave=4) == pytest.approx(1)
    assert ssim_rgb(picture, picture, shave=0) == pytest.approx(1)


def test_the_border_is_left_out():
    one, other = random_picture(32, 32), random_picture(32, 32)
    other[:, :4], other[:, :, -4:] = 0, 255
    assert psnr_y(one, other, shave=4) == psnr_rgb(one, other, shave=4) == math.inf
    assert ssim_y(one, other, shave=4) == pytest.approx(1)
    assert psnr_y(one, other, shave=3) < 40


def naive_ssim(a: np.ndarray, b: np.ndarray, window: np.ndarray, unbias: float) -> float:
    """The definition, window by window."""
    side, values = len(window), []
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    for top in range(a.shape[0] - side + 1):
        for left in range(a.shape[1] - side + 1):
            p, q = (x[top : top + side, left : left + side] for x in (a, b))
            mean_p, mean_q = (window * p).sum(), (window * q).sum()
            var_p = unbias * (window * (p - mean_p) ** 2).sum()
            var_q = unbias * (window * (q - mean_q) ** 2).sum()
            cov = unbias * (window * (p - mean_p) * (q - mean_q)).sum()
            likeness = (2 * mean_p * mean_q + c1) * (2 * cov + c2)
            values.append(likeness / (mean_p**2 + mean_q**2 + c1) / (var_p + var_q + c2))
    return float(np.mean(values))


def test_ssim_is_its_definition():
    one, other = random_picture(15, 13, 1), random_picture(15, 13, 2)
    taps = np.exp(-((np.arange(11) - 5.0) ** 2) / 4.5)
    window = np.outer(taps, taps) / taps.sum() ** 2
    expected = naive_ssim(luma(one).numpy(), luma(other).numpy(), window, 1.0)
    assert ssim_y(one, other, shave=0) == pytest.approx(expected, abs=1e-12)


def test_ssim_of_the_colours_is_its_definition():
    one, other = random_picture(9, 10, 1), random_picture(9, 10, 2)
    pairs = zip(one.double().numpy(), other.double().numpy(), strict=True)
    expected = np.mean([naive_ssim(a, b, np.full((7, 7), 1 / 49), 49 / 48) for a, b in pairs])
    assert ssim_rgb(one, other, shave=0) == pytest.approx(float(expected), abs=1e-12)


def test_lr_psnr():
    hr = street()[:, :64, :64]
    lr = degrade_8bit(hr.unsqueeze(0), 4)[0]
    assert lr_psnr(hr, lr, 4) == math.inf
    assert lr_psnr(hr, lr ^ 1, 4) == pytest.approx(20 * math.log10(255))


@pytest.mark.parametrize("net", BACKBONES)
def test_lpips_is_a_distance(net, lpips_weights):
    lpips = LPIPS(lpips_weights(net), net=net)
    one, other = random_picture(33, 40, 1), random_picture(33, 40, 2)
    assert lpips(one, one) == 0
    assert lpips(one, other) == lpips(other, one) > 0
    features = lpips.features(one), lpips.features(other)
    assert lpips.distance(*features) == lpips(one, other)
    distances = lpips.distance_map(*features, (33, 40))
    assert distances.shape == (33, 40)
    assert distances.mean().item() == pytest.approx(lpips(one, other), rel=0.2)


def test_lpips_takes_a_side_of_32_pixels(lpips_weights):
    for net in BACKBONES:
        lpips = LPIPS(lpips_weights(net), net=net)
        assert lpips(random_picture(32, 32, 1), random_picture(32, 32, 2)) > 0


def test_other_weights_are_refused(tmp_path, lpips_weights):
    path = tmp_path / "other.safetensors"
    path.write_text("no safetensors")
    for build, name in ((LPIPS, "LPIPS"), (DISTS, "DISTS"), (InceptionFeatures, "Inception")):
        for file in (path, tmp_path / "absent.safetensors", lpips_weights("squeeze")):
            with pytest.raises(WeightsError, match=f"{file}: not {name} weights"):
                build(file)


@pytest.fixture(scope="module")
def reference(load_script):
    """benchmarks/metric_references.py, which prints what is expected here."""
    return load_script("benchmarks/metric_references.py")


@pytest.fixture(scope="module")
def reference_files(reference, tmp_path_factory):
    return reference.save_weights(tmp_path_factory.mktemp("weights"))


def test_what_other_packages_compute(reference, reference_files):
    found = reference.ours(reference_files)
    expected = {
        "LPIPS vgg": 0.032539822,  # lpips 0.1.4
        "DISTS": 0.0076346397,  # dists-pytorch 0.1
        "Inception, mean feature": 4.1622858,  # pytorch-fid 0.3.0
        "FID": 2240.5948,
        "SSIM RGB": 0.96584729,  # scikit-image 0.26.0
        "SSIM Y": 0.96477265,
    }
    # Two units in the last place of float32's 1, from which DISTS is subtracted: the number of
    # threads alone makes one.
    assert found == pytest.approx(expected, rel=1e-5, abs=2**-22)


def test_dists_is_a_distance(reference_files):
    dists = DISTS(reference_files["vgg16"], reference_files["dists"])
    one, other = random_picture(33, 40, 1), random_picture(33, 40, 2)
    assert dists(one, one) == pytest.approx(0, abs=1e-6)
    assert dists(one, other) == pytest.approx(dists(other, one)) and dists(one, other) > 0.001
    assert dists(one, other) == dists.distance(dists.features(one), dists.features(other))


def test_frechet_distance_of_gaussians():
    generator = torch.Generator().manual_seed(0)
    one = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    assert frechet_distance(one, one) == pytest.approx(0, abs=1e-9)
    assert frechet_distance(one, one + 2) == pytest.approx(6 * 4)
    widened = one.mean(0) + 3 * (one - one.mean(0))
    assert frechet_distance(one, widened) == pytest.approx(4 * one.var(0).sum().item())


def test_frechet_distance_of_fewer_pictures_than_features():
    generator = torch.Generator().manual_seed(0)
    few = torch.randn(5, 30, generator=generator, dtype=torch.float64)
    many = torch.randn(60, 30, generator=generator, dtype=torch.float64)
    covariances = [torch.cov(x.T) for x in (few, many)]
    root = torch.linalg.eigvals(covariances[0] @ covariances[1]).real.clamp(min=0).sqrt().sum()
    expected = (few.mean(0) - many.mean(0)).square().sum() - 2 * root
    expected += sum(covariance.trace() for covariance in covariances)
    assert frechet_distance(few, many) == pytest.approx(expected.item(), rel=1e-6)


def test_average_pairwise_distance():
    assert average_pairwise([1.0, 2.0, 4.0], lambda a, b: abs(a - b)) == 2
    assert average_pairwise([1.0], lambda a, b: 1.0) == 0
    black, white = torch.zeros(3, 2, 2, dtype=torch.uint8), torch.full((3, 2, 2), 255)
    assert mse_unit(black, white.to(torch.uint8)) == 1


def test_pairwise_rms_is_the_mean_over_pairs():
    pictures = torch.rand(4, 3, 5, 6, generator=torch.Generator().manual_seed(0))
    by_hand = average_pairwise(list(pictures), lambda a, b: (a - b).square().mean().sqrt().item())
    assert pairwise_rms(pictures) == pytest.approx(by_hand, rel=1e-6)
    assert pairwise_rms(pictures[:1].expand(3, -1, -1, -1)) == 0


def test_ntire_diversity():
    left, right = torch.tensor([[0.0, 1.0]]), torch.tensor([[1.0, 0.0]])
    assert ntire_diversity([left, right]) == 100
    assert ntire_diversity([left, left]) == 0
    assert ntire_diversity([torch.zeros(1, 2)]) == 0


@pytest.mark.parametrize(
    ("dataset", "alex", "squeeze"), [("Set5", 0.3406, 0.2876), ("Set14", 0.4401, 0.3732)]
)
def test_lpips_of_bicubic_is_as_measured_elsewhere(dataset, alex, squeeze):
    folder, metrics = SHARED / "data" / "bench" / dataset, SHARED / "metrics"
    if not (folder.is_dir() and metrics.is_dir()):
        pytest.skip("the benchmark sets and metric weights lie beside the repository")
    nets = {
        net: LPIPS(metrics / f"lpips_{net}.safetensors", net=net) for net in ("alex", "squeeze")
    }
    found: dict[str, list[float]] = {"alex": [], "squeeze": []}
    for scene in load_scenes(discover([folder], 4)[0], Protocol.standard, 4, print):
        for net, lpips in nets.items():
            found[net].append(lpips(bicubic(scene.lr, 4), scene.hr))
    assert np.mean(found["alex"]) == pytest.approx(alex, abs=1e-4)
    assert np.mean(found["squeeze"]) == pytest.approx(squeeze, abs=2e-4)


@pytest.mark.parametrize(
    ("net", "expected"), [("alex", (0.7219, 0.1376)), ("squeeze", (0.7110, 0.1479))]
)
def test_lpips_of_the_published_examples(net, expected):
    """The authors' imgs/ex_ref and ex_p0, ex_ref and ex_p1: 0.722 and 0.138 for AlexNet."""
    pictures = SHARED / "metrics" / "examples"
    if not (pictures / "ex_ref.png").is_file():
        pytest.skip("ex_ref.png, ex_p0.png and ex_p1.png of the authors are not at hand")
    lpips = LPIPS(SHARED / "metrics" / f"lpips_{net}.safetensors", net=net)
    ref, *others = (
        read_picture(pictures / f"ex_{name}.png").rgb[0].mul(255).round().to(torch.uint8)
        for name in ("ref", "p0", "p1")
    )
    assert [lpips(ref, other) for other in others] == pytest.approx(expected, abs=1e-4)


def test_fits_recover_what_was_drawn():
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(200_000, generator=generator, dtype=torch.float64)
    variance, shape = _fit_symmetric(3 * values)
    assert variance.item() == pytest.approx(9, rel=0.02)
    assert shape.item() == pytest.approx(2, abs=0.05)
    is_right = torch.rand(values.shape, generator=generator) < 2 / 3
    skewed = torch.where(is_right, 2 * values.abs(), -values.abs()).unsqueeze(0)
    shape, _, left, right = _fit(skewed)[0].tolist()
    assert shape == pytest.approx(2, abs=0.05)
    assert (left, right) == pytest.approx((2**0.5, 2 * 2**0.5), rel=0.02)


def test_normalised_values_are_indifferent_to_brightness():
    plane = luma(street()) + 100
    for edges in ("constant", "replicate"):
        values = normalised(plane, edges=edges)
        inner = normalised(plane + 50, edges=edges)[4:-4, 4:-4]
        assert values.shape == plane.shape
        assert torch.allclose(values[4:-4, 4:-4], inner)
    assert torch.equal(normalised(torch.ones(9, 9).double(), edges="replicate"), torch.zeros(9, 9))


@pytest.fixture
def niqe_prior(tmp_path):
    path = tmp_path / "prior.npz"
    np.savez(path, mu_pris_param=np.ones((1, 36)), cov_pris_param=np.eye(36))
    return path


def test_niqe_needs_two_blocks_with_texture(niqe_prior):
    niqe = Niqe(niqe_prior)
    assert niqe(random_picture(95, 300)) is None
    assert niqe(random_picture(96, 100)) is None
    assert niqe(torch.full((3, 200, 200), 9, dtype=torch.uint8)) is None
    assert niqe(random_picture(100, 200)) > 0
    again = niqe_prior.with_suffix(".safetensors")
    with np.load(niqe_prior) as arrays:
        save_file({name: torch.from_numpy(arrays[name]) for name in arrays.files}, again)
    assert Niqe(again)(random_picture(100, 200)) == niqe(random_picture(100, 200))


@pytest.fixture
def brisque_files(tmp_path):
    model, scaling = tmp_path / "allmodel", tmp_path / "allrange"
    model.write_text("svm_type epsilon_svr\ngamma 0.05\nrho -3\nSV\n2 1:0.5 36:-0.25 \n-2 2:1\n")
    ranges = "".join(f"{index} 0 10\n" for index in range(1, 37))
    scaling.write_text(f"x\n-1 1\n{ranges}")
    return model, scaling


def test_brisque_of_a_small_model(brisque_files):
    brisque = Brisque(*brisque_files)
    assert brisque.vectors.shape == (2, 36)
    assert brisque.vectors[0, [0, 35]].tolist() == [0.5, -0.25]
    score = brisque(random_picture(64, 48))
    assert score is not None and 1 < score < 5
    assert brisque(torch.full((3, 40, 40), 9, dtype=torch.uint8)) is None


def test_damaged_files_of_the_unaided_metrics(tmp_path, brisque_files):
    model, scaling = brisque_files
    other = tmp_path / "other"
    other.write_text("no model")
    for files in ((other, scaling), (model, other), (tmp_path / "absent", scaling)):
        with pytest.raises(WeightsError, match="not BRISQUE's model"):
            Brisque(*files)
    for path in (other, tmp_path / "absent", tmp_path / "absent.safetensors"):
        with pytest.raises(WeightsError, match="not NIQE's prior"):
            Niqe(path)


@pytest.mark.parametrize(
    ("dataset", "brisque", "niqe"), [("Set5", 58.1, 8.31), ("Set14", 59.5, 7.84)]
)
def test_unaided_scores_of_bicubic_are_as_measured_elsewhere(dataset, brisque, niqe):
    folder, metrics = SHARED / "data" / "bench" / dataset, SHARED / "metrics"
    if not (folder.is_dir() and metrics.is_dir()):
        pytest.skip("the benchmark sets and metric weights lie beside the repository")
    score = Brisque(metrics / "brisque" / "allmodel", metrics / "brisque" / "allrange")
    distance = Niqe(metrics / "niqe" / "niqe_pris_params.npz")
    scenes = load_scenes(discover([folder], 4)[0], Protocol.standard, 4, print)
    pictures = [bicubic(scene.lr, 4) for scene in scenes]
    assert np.mean([score(p) for p in pictures]) == pytest.approx(brisque, abs=0.15)
    assert np.mean([distance(p) for p in pictures]) == pytest.approx(niqe, abs=0.006)
