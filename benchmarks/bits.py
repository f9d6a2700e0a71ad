"""Bits per dimension of the bundled models beside those of lossless WebP and JPEG XL.

    python benchmarks/bits.py Set5 Set14 PHOTOGRAPHS [--write]

Prints one table, the means over the pictures of each set; with --write it replaces the one in
docs/results.md. The conditional models are given the LR picture, x4; the prior and the codecs are
not. A model's figure is the negative ELBO at one draw of the posterior, seed 0, in float32. JPEG XL
needs the extra jxl.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import fmean

from common import argument_parser
from results import stop, write_section

from vdsr_cli.bench.data import Dataset, Protocol, discover, load_scenes
from vdsr_cli.bench.likelihood import bound_bits, lossless_bits
from vdsr_cli.bench.priors import PriorBenchRequest, run_prior_bench
from vdsr_cli.bench.run import Events
from vdsr_cli.loading import LoadedModel, LoadedPrior, load
from vdsr_cli.models.protocol import LikelihoodModel, Prior, Sampler
from vdsr_cli.runtime import choose_runtime

SCALE = 4
MODELS = ("vdvae-sr-x4", "vdvae-sr-x4-tiny")
PRIOR = "vdvae-x4-prior"
CODECS = {"webp_bits": "lossless WebP", "jxl_bits": "lossless JPEG XL"}
RUNTIME = choose_runtime("cpu", "float32")


def bits_of(
    dataset: Dataset, models: Sequence[LoadedModel], prior: LoadedPrior
) -> dict[str, float]:
    """Mean bits per dimension over a set, by what codes it."""
    bits: dict[str, list[float]] = {}
    for scene in load_scenes(dataset, Protocol.standard, SCALE, stop):
        for loaded in models:
            assert isinstance(loaded.model, LikelihoodModel)
            scores = bound_bits(loaded.model, scene, seed=0, runtime=RUNTIME)
            bits.setdefault(f"{loaded.name}, given LR", []).append(scores["bits_per_dim"])
        for key, value in lossless_bits(scene.hr).items():
            bits.setdefault(CODECS[key], []).append(value)
    request = PriorBenchRequest(datasets=[dataset])
    report = run_prior_bench(request, [prior], RUNTIME, Events(on_failure=stop))
    means = {name: fmean(values) for name, values in bits.items()}
    return means | {prior.name: report.rows()[0].scores["bits_per_dim"].mean}


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
    found = table({d.name: bits_of(d, models, prior) for d in datasets})
    if options.write:
        write_section("bits", found)
    else:
        print(found, end="")


if __name__ == "__main__":
    main()
