"""vdsr from Python: python examples/library.py [PICTURE], the cells of a notebook in order."""

# %% A model and a picture
import sys
from pathlib import Path

import torch

import vdsr_cli as vdsr

path = Path(sys.argv[1] if len(sys.argv) > 1 else "examples/detail.png")
model = vdsr.load("vdvae-sr-x4")
picture = vdsr.read(path)

# %% One larger picture: the bytes of vdsr upscale -m vdvae-sr-x4
sr = model.upscale(picture, scale=4, temperature=0.8, seed=0)
sr.save(f"{path.stem}_x4.png")
print(f"{sr.width} x {sr.height}, degrades to the input with {sr.lr_psnr:.1f} dB")

# %% Several that the picture may come from, and where they differ
samples = model.sample(picture, n=3)
for sample in samples:
    print(f"sample {sample.index}: {sample.lr_psnr:.1f} dB")
print(f"mean deviation {255 * samples.std.mean():.2f} levels")

# %% Tensors in, tensors out: a picture reduced, enlarged again, and scored against itself
truth = picture.rgb[..., : picture.height // 4 * 4, : picture.width // 4 * 4]
lr = vdsr.degrade(truth, model.scale).clamp(0, 1).mul(255).round().div(255)
for temperature in (0.0, 0.8):
    hr = model(lr, temperature=temperature, seed=3)
    print(f"temperature {temperature}: PSNR-Y {vdsr.psnr_y(hr, truth, shave=4):.2f} dB")

# %% The likelihood of the truth given its reduction
print(f"{model.elbo(truth, lr).bits_per_dim:.3f} bits a dimension")
assert torch.isfinite(hr).all()
