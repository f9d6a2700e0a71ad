"""Bits per dimension of the bundled models beside those of lossless WebP and JPEG XL.

    python benchmarks/bits.py Set5 Set14 PHOTOGRAPHS [--write]

Prints one table, the means over the pictures of each set and over those of more than 256 colours;
with --write it replaces the one in docs/results.md. The conditional models are given the LR
picture, x4; the prior and the codecs are not. A model's figure is the negative ELBO at one draw of
the posterior, seed 0, in float32; of a picture of at most 256 colours, whose palette the codecs
send first, likelihoods are normalised over the palette, which is counted. JPEG XL needs the extra
jxl.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from common import argument_parser
from results import stop, write_section

from vdsr_cli.bench.data import Dataset, Protocol, Scene, discover, load_scenes
from vdsr_cli.bench.likelihood import PALETTE, bound_bits, lossless_bits, palette_of
from vdsr_cli.bench.priors import bits_in_palette, score_batch
from vdsr_cli.loading import LoadedModel, LoadedPrior, load
from vdsr_cli.models.protocol import LikelihoodModel, Prior, Sampler
from vdsr_cli.runtime import choose_runtime

SCALE = 4
MODELS = ("vdvae-sr-x4", "vdvae-sr-x4-tiny")
PRIOR = "vdvae-x4-prior"
CODECS = {"webp_bits": "lossless WebP", "jxl_bits": "lossless JPEG XL"}
RUNTIME = choose_runtime("cpu", "float32")


def bits_of(scene: Scene, models: Sequence[LoadedModel], prior: LoadedPrior) -> dict[str, float]:
    """Bits per dimension of a picture, by what codes it."""
    bits = {}
    for loaded in models:
        assert isinstance(loaded.model, LikelihoodModel)
        scores = bound_bits(loaded.model, scene, seed=0, runtime=RUNTIME)
        bits[f"{loaded.name}, given LR"] = scores["palette_bits"]
    codecs = lossless_bits(scene.hr)
    bits |= {CODECS[key]: value for key, value in codecs.items()}
    height, width = (side - side % prior.model.cell_px for side in scene.hr.shape[1:])
    hr = scene.hr[:, :height, :width]
    (tally,) = score_batch(prior.model, hr[None], 0, RUNTIME)
    return bits | {prior.name: bits_in_palette(prior.model, hr, tally, 0, RUNTIME)}


def columns(
    dataset: Dataset, models: Sequence[LoadedModel], prior: LoadedPrior
) -> dict[str, dict[str, float]]:
    """The means over a set, and over its pictures without a palette where there are others."""
    scenes = list(load_scenes(dataset, Protocol.standard, SCALE, stop))
    found = [bits_of(scene, models, prior) for scene in scenes]
    whole = [b for b, scene in zip(found, scenes, strict=True) if palette_of(scene.hr) is None]
    groups = {f"{dataset.name} ({len(found)})": found}
    if whole and len(whole) < len(found):
        groups[f"{dataset.name}, over {PALETTE} colours ({len(whole)})"] = whole
    return {
        name: {key: fmean(bits[key] for bits in group) for key in group[0]}
        for name, group in groups.items()
    }


def table(sets: Mapping[str, Mapping[str, float]]) -> str:
    """Sets as columns, what codes them as rows, in Markdown."""
    rows = [f"| bits per dimension | {' | '.join(sets)} |", "| --- |" + " ---: |" * len(sets)]
    for name in next(iter(sets.values())):
        rows.append(f"| {name} | {' | '.join(f'{bits[name]:.4f}' for bits in sets.values())} |")
    return "\n".join(rows) + "\n"


def main() -> None:
    """Parses, measures, prints or writes."""
    parser = argument_parser(__doc__)
    parser.add_argument("paths", type=Path, nargs="+", help="Set5, Set14, ...")
    parser.add_argument("--write", action="store_true", help="into docs/results.md")
    options = parser.parse_args()

    models = [load(name, RUNTIME, expects=Sampler) for name in MODELS]
    prior = load(PRIOR, RUNTIME, expects=Prior)
    datasets = discover(options.paths, SCALE)
    found: dict[str, dict[str, float]] = {}
    for dataset in datasets:
        found |= columns(dataset, models, prior)
    if options.write:
        write_section("bits", table(found))
    else:
        print(table(found), end="")


if __name__ == "__main__":
    main()
