"""Model cards: what a run's checkpoint knows of itself, as a header's facts and as Markdown."""

import math
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from vdsr_cli.training.config import Row

LICENCE_NOTE = (
    "The weights are yours to license; check that the pictures' own licences allow what you do"
    " with a model made from them."
)
LIMITS = {
    "bicubic": "Made for pictures reduced by antialiased bicubic; noise and JPEG come out"
    " enlarged.",
    "mean": "Made for pictures reduced by averaging square blocks, of the kind it was trained on.",
    "real": "Made for noisy, compressed pictures; of a clean one it keeps less detail than the"
    " bicubic models, and its output does not degrade to exactly the input.",
}


def hardware_of(device: torch.device) -> str:
    """The machine's processor or card, as a person would name it."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    threads = torch.get_num_threads()
    plural = "s" if threads > 1 else ""
    return f"{platform.machine()} CPU, {threads} thread{plural}, torch {torch.__version__}"


def command_line() -> str:
    """The ``vdsr`` command of this process, quoted for a shell."""
    return shlex.join(["vdsr", *sys.argv[1:]])


MEASURED = ("step", "train", "legs", "seconds", "curves", "licence_note")
"""Facts that a run tells, in parts of the page of their own."""


def card_facts(
    run: Mapping[str, Any], rows: Sequence[Row], blend: Mapping[str, float]
) -> dict[str, Any]:
    """The facts of a run's checkpoint for the header: plain JSON values.

    A model is passed on, so of absolute paths only the last part is told.

    Args:
        run: what :func:`~vdsr_cli.weights.runs.read_checkpoint` gave.
        blend: what else is in the weights, and its share.
    """
    config = {key: _plain(value) for key, value in run["config"].items()}
    legs = [_public_leg(leg) for leg in run.get("legs", [])]
    return {
        "degradation": config.get("degradation", "bicubic"),
        "step": run["step"],
        "train": config,
        "legs": legs,
        "seconds": round(sum(leg.get("seconds", 0.0) for leg in legs), 1),
        "curves": curve_summary(rows),
        "licence_note": LICENCE_NOTE,
        **({"blend": {_last_part(name): share for name, share in blend.items()}} if blend else {}),
    }


def curve_summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """The first, last and best value of each figure of the log, of those that are finite."""
    summary = {}
    for key in ("loss", "distortion_bits", "rate_bits", "mean_l1", "val_bits"):
        values = [row[key] for row in rows if row.get(key) and math.isfinite(row[key])]
        if values:
            summary[key] = {"first": values[0], "last": values[-1], "best": min(values)}
    best_of = {"val_psnr_y": max, "val_lpips": min}
    for key, best in [(k + at, f) for k, f in best_of.items() for at in ("", "_sample")]:
        values = [row[key] for row in rows if math.isfinite(row.get(key, math.nan))]
        if values:
            summary[key] = {"first": values[0], "last": values[-1], "best": best(values)}
    return summary


def markdown_card(name: str, architecture: str, parameters: int, facts: Mapping[str, Any]) -> str:
    """The card as a page; what a person added with ``--card`` comes first."""
    added = {key: value for key, value in facts.items() if key not in (*MEASURED, "degradation")}
    lines = [f"# {name}", "", f"{architecture}, {parameters:,} parameters.", ""]
    lines += [f"- **{key}**: {value}" for key, value in added.items()]
    lines += [
        f"- **degradation**: {facts['degradation']}",
        f"- **steps**: {facts['step']:,}, {facts['seconds'] / 60:.0f} minutes",
        *([] if "licence" in added else [f"- **licence**: {facts['licence_note']}"]),
        f"- **limits**: {LIMITS.get(facts['degradation'], '')}",
        "",
        "## Training",
        "",
    ]
    lines += [line for leg in facts["legs"] for line in _leg_lines(leg)]
    lines += ["", "| hyper-parameter | value |", "|---|---|"]
    lines += [f"| {key} | {value} |" for key, value in _flat(facts["train"])]
    if facts["curves"]:
        lines += ["", "## Curves", "", "| figure | first | last | best |", "|---|---|---|---|"]
        lines += [
            f"| {key} | {v['first']:.4g} | {v['last']:.4g} | {v['best']:.4g} |"
            for key, v in facts["curves"].items()
        ]
    return "\n".join(lines) + "\n"


def _flat(config: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Names and values; those of a configuration within, ``outer.inner``, one by one."""
    rows: list[tuple[str, Any]] = []
    for key, value in config.items():
        within = value.items() if isinstance(value, Mapping) else [("", value)]
        rows += [(f"{key}.{name}" if name else key, inner) for name, inner in within]
    return rows


def _leg_lines(leg: Mapping[str, Any]) -> list[str]:
    steps = f"steps {leg.get('from_step', 0):,} to {leg.get('to_step', 0):,}"
    megapixels = leg.get("pixels", 0) / 1e6
    data = f"{leg.get('copies', 0):,} pictures, each size counted, {megapixels:,.1f} megapixels"
    where = f"{leg.get('seconds', 0) / 60:.1f} minutes on {leg.get('hardware', 'unknown hardware')}"
    lines = [f"- {steps}: {data}, {where}"]
    named = (("data", "data"), ("started_from", "started from"))
    lines += [f"  - {name}: {leg[key]}" for key, name in named if key in leg]
    return [*lines, *([f"  - `{leg['command']}`"] if "command" in leg else [])]


def _public_leg(leg: Mapping[str, Any]) -> dict[str, Any]:
    """A leg as plain JSON values, without the folders that absolute paths lead through."""
    told = {key: _plain(value) for key, value in leg.items()}
    if "command" in told:
        told["command"] = shlex.join(map(_last_part, shlex.split(told["command"])))
    for key in {"data", "started_from"} & told.keys():
        told[key] = ", ".join(map(_last_part, told[key].split(", ")))
    return told


def _last_part(word: str) -> str:
    """The name at the end of an absolute path, ``--option=`` before it or not; else the word."""
    option, equals, value = word.partition("=") if word.startswith("--") else ("", "", word)
    return option + equals + (Path(value).name if Path(value).is_absolute() else value)


def _plain(value: Any) -> Any:
    """A JSON value: infinities, which JSON lacks, become words."""
    is_odd = isinstance(value, float) and (value != value or value in (float("inf"), -float("inf")))
    return str(value) if is_odd else value
