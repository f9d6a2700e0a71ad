"""Our metrics beside the packages that define them, on the same pictures and weights.

    pip install lpips dists-pytorch pytorch-fid scikit-image torchvision
    python benchmarks/metric_references.py

VGG16 and Inception get random weights, the same on every machine, so that nothing is downloaded:
what is compared is the computation. tests/metrics/test_metrics.py holds the references' figures.
"""

import tempfile
from collections.abc import Callable, Mapping
from pathlib import Path
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from vdsr_cli.metrics import (
    DISTS,
    LPIPS,
    InceptionFeatures,
    frechet_distance,
    luma,
    ssim_rgb,
    ssim_y,
)
from vdsr_cli.metrics.backbones import BACKBONES, vgg16
from vdsr_cli.metrics.inception import fid_inception

CHANNELS = 3 + sum(BACKBONES["vgg"].widths)


def pictures() -> tuple[Tensor, Tensor]:
    """A rough picture and a noisy copy, uint8 (3, 101, 86)."""
    generator = torch.Generator().manual_seed(1)
    one = torch.randint(0, 256, (3, 101, 86), generator=generator)
    noise = 20 * torch.randn(one.shape, generator=generator)
    return one.to(torch.uint8), (one + noise).clamp(0, 255).to(torch.uint8)


def feature_sets() -> tuple[Tensor, Tensor]:
    """Two sets of features, float64 (500, 64) and (450, 64)."""
    generator = torch.Generator().manual_seed(2)
    draw = [torch.randn(n, 64, generator=generator, dtype=torch.float64) for n in (500, 450)]
    mix = [torch.randn(64, 64, generator=generator, dtype=torch.float64) for _ in draw]
    return draw[0] @ mix[0], draw[1] @ mix[1]


def seeded(module: nn.Module) -> dict[str, Tensor]:
    """Weights of a network: normal of deviation (2 / fan-in)^(1/2), statistics around 1."""
    generator = torch.Generator().manual_seed(0)
    state = {}
    for name, value in module.state_dict().items():
        drawn = torch.randn(value.shape, generator=generator)
        if value.dim() == 4:
            drawn *= (2 / value[0].numel()) ** 0.5
        elif name.endswith(("running_var", "bn.weight")):
            drawn = 1 + 0.2 * drawn.clamp(-2, 2)
        state[name] = drawn.to(value.dtype) if value.dim() else value
    return state


def save_weights(folder: Path) -> dict[str, Path]:
    """Files for our metrics: VGG16, heads of LPIPS and DISTS, Inception."""
    generator = torch.Generator().manual_seed(3)
    widths = enumerate(BACKBONES["vgg"].widths)
    states: Mapping[str, dict[str, Tensor]] = {
        "vgg16": {f"features.{name}": value for name, value in seeded(vgg16()).items()},
        "lpips": {
            f"lin{index}.model.1.weight": torch.rand(1, width, 1, 1, generator=generator)
            for index, width in widths
        },
        "dists": {
            name: torch.rand(1, CHANNELS, 1, 1, generator=generator) for name in ("alpha", "beta")
        },
        "inception": seeded(fid_inception()),
    }
    for name, state in states.items():
        save_file(state, folder / f"{name}.safetensors")
    return {name: folder / f"{name}.safetensors" for name in states}


def ours(files: Mapping[str, Path]) -> dict[str, float]:
    """Our figures."""
    one, other = pictures()
    inception = InceptionFeatures(files["inception"])
    return {
        "LPIPS vgg": LPIPS(files["vgg16"], files["lpips"], net="vgg")(one, other),
        "DISTS": DISTS(files["vgg16"], files["dists"])(one, other),
        "Inception, mean feature": inception(one).mean().item(),
        "FID": frechet_distance(*feature_sets()),
        "SSIM RGB": ssim_rgb(one, other, shave=0),
        "SSIM Y": ssim_y(one, other, shave=0),
    }


def references(files: Mapping[str, Path]) -> dict[str, float]:
    """The packages' figures."""
    import torchvision

    vgg = torchvision.models.vgg16(weights=None)
    vgg.features.load_state_dict(seeded(vgg16()))
    with mock.patch("torchvision.models.vgg16", lambda **options: vgg), torch.no_grad():
        learned = _reference_lpips(files), _reference_dists(files)
    return {
        "LPIPS vgg": learned[0],
        "DISTS": learned[1],
        "Inception, mean feature": _reference_inception(),
        "FID": _reference_fid(),
        **_reference_ssim(),
    }


def _unit() -> tuple[Tensor, Tensor]:
    one, other = pictures()
    return one.unsqueeze(0).float() / 255, other.unsqueeze(0).float() / 255


def _reference_lpips(files: Mapping[str, Path]) -> float:
    import lpips
    from safetensors.torch import load_file

    model = lpips.LPIPS(net="vgg", pretrained=False, pnet_rand=False, verbose=False).eval()
    model.load_state_dict(load_file(files["lpips"]), strict=False)
    one, other = _unit()
    return float(model(2 * one - 1, 2 * other - 1))


def _reference_dists(files: Mapping[str, Path]) -> float:
    from DISTS_pytorch.DISTS_pt import DISTS as Official  # noqa: N811
    from safetensors.torch import load_file

    model = Official(load_weights=False)
    for name, value in load_file(files["dists"]).items():
        getattr(model, name).data = value
    return float(model(*_unit()))


def _reference_inception() -> float:
    import torchvision
    from pytorch_fid import inception

    weights = seeded(fid_inception())
    load = torchvision.models.Inception3.load_state_dict
    partly = mock.patch.object(
        torchvision.models.Inception3,
        "load_state_dict",
        lambda self, state: load(self, state, False),
    )
    with partly, mock.patch.object(inception, "load_state_dict_from_url", lambda *_, **__: weights):
        network = inception.InceptionV3().eval()
    with torch.no_grad():
        return float(network(_unit()[0])[0].mean())


def _reference_fid() -> float:
    import numpy as np
    from pytorch_fid.fid_score import calculate_frechet_distance

    sets = [features.numpy() for features in feature_sets()]
    moments = [moment for x in sets for moment in (x.mean(0), np.cov(x, rowvar=False))]
    return float(calculate_frechet_distance(*moments))


def _reference_ssim() -> dict[str, float]:
    from skimage.metrics import structural_similarity

    one, other = pictures()
    rgb = [picture.permute(1, 2, 0).numpy() for picture in (one, other)]
    planes = [luma(picture).numpy() for picture in (one, other)]
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    _, similarity = structural_similarity(*planes, data_range=255, full=True, **options)
    return {
        "SSIM RGB": float(structural_similarity(*rgb, channel_axis=2, data_range=255)),
        "SSIM Y": float(similarity[5:-5, 5:-5].mean()),
    }


def main() -> None:
    """Prints both, and how far they are apart."""
    sources: list[Callable[[Mapping[str, Path]], dict[str, float]]] = [ours, references]
    with tempfile.TemporaryDirectory() as folder:
        files = save_weights(Path(folder))
        found, expected = (source(files) for source in sources)
    print(f"{'metric':<24} {'reference':>14} {'ours':>14} {'relative':>10}")
    for name, value in expected.items():
        apart = abs(found[name] - value) / abs(value)
        print(f"{name:<24} {value:>14.8g} {found[name]:>14.8g} {apart:>10.1e}")


if __name__ == "__main__":
    main()
