"""The help of every command shows all that its options say, defaults above all."""

import re
from collections.abc import Iterator
from dataclasses import fields

import pytest
import typer
from rich.text import Text

from vdsr_cli.cli.app import app
from vdsr_cli.training.cnn_vae import default_config
from vdsr_cli.training.config import DEFAULTS, AdversarialConfig, TrainConfig, config_for


def walk(command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], object]]:
    """Every command and group with the words that lead to it."""
    yield path, command
    for name, below in getattr(command, "commands", {}).items():
        yield from walk(below, (*path, name))


COMMANDS = dict(walk(typer.main.get_command(app)))


def default_told(option) -> str | None:
    """The words of the help for an option's default; None where there is nothing to say."""
    if isinstance(option.show_default, str):
        return f"default: {option.show_default}"
    value = option.default
    if not option.show_default or value is None or value == [] or callable(value):
        return None
    if option.is_flag:
        names = {True: option.opts[0], False: (option.secondary_opts or [None])[0]}
        return f"default: {names[value]}" if option.secondary_opts else None
    if isinstance(value, float):
        return f"default: {value:g}"
    return f"default: {getattr(value, 'value', value)}"


def test_all_commands_are_found():
    assert {("upscale",), ("train", "vdvae-sr"), ("weights", "list")} <= COMMANDS.keys()


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_nothing_that_is_said_is_lost(vdsr, monkeypatch, path):
    monkeypatch.setenv("COLUMNS", "1000")
    ended = vdsr(*path, "--help")
    assert ended.code == 0
    shown = " ".join(ended.out.decode().split())
    for parameter in COMMANDS[path].params:
        told = Text.from_markup(getattr(parameter, "help", None) or "").plain
        assert " ".join(told.split()) in shown
        default = default_told(parameter) if parameter.param_type_name == "option" else None
        assert default is None or default in shown, f"{parameter.name}: {default}"


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_no_text_is_taken_for_markup(path):
    """An option's default stands in ``show_default``; other brackets are escaped."""
    command = COMMANDS[path]
    texts = [command.help, *(getattr(parameter, "help", None) for parameter in command.params)]
    for text in filter(None, texts):
        assert "default:" not in text.lower(), text
        rendered = Text.from_markup(text)
        assert not rendered.spans, text
        assert rendered.plain == text.replace("\\[", "["), text


@pytest.mark.parametrize("path", COMMANDS, ids=" ".join)
def test_it_reads_in_80_columns(vdsr, monkeypatch, path):
    monkeypatch.setenv("COLUMNS", "80")
    lines = vdsr(*path, "-h").out.decode().splitlines()
    assert all(len(line) <= 80 or line.startswith("    vdsr ") for line in lines)
    if not hasattr(COMMANDS[path], "commands"):
        assert sum(line.startswith("    vdsr ") for line in lines) == 3
        assert "Options" not in lines, "an option without a group"


@pytest.mark.parametrize("command", ["upscale", "sample-diverse", "bench", "generate"])
def test_options_stand_in_groups(vdsr, command):
    shown = vdsr(command, "-h").out.decode().splitlines()
    assert {"Picture", "Output", "Performance"} <= set(shown)


def test_defaults_of_training_are_those_of_its_objectives():
    """Each number that some objective or start begins with stands in the option's default."""
    options = {option.name: option for option in COMMANDS["train", "vdvae"].params}
    variants = [config_for(objective, {}) for objective in DEFAULTS]
    variants += [config_for("vdvae-sr", {}, on_prior=True)]
    variants += [config_for("vdvae-sr", {}, fine_tuning=True)]
    variants += [config_for("vdvae-sr", {}, adversarial=AdversarialConfig(start=0))]
    variants += [config_for("vdvae-sr", {"likelihood_only": True})]
    others = {"adversarial", "kl", "fit", "likelihood_only", "fine_layers"}
    for name in {field.name for field in fields(TrainConfig)} - others:
        values = {getattr(variant, name) for variant in variants}
        told = {f"{v:g}" if isinstance(v, float | int) else v for v in values}
        told = {"none" if text == "inf" else text for text in told}
        words = re.findall(r"[^\s,;]+", options[name].show_default)
        starts = {
            "and",
            "with",
            "--from",
            "--prior",
            "--adversarial",
            "--likelihood-only",
            *DEFAULTS,
        }
        assert told == set(words) - starts, name


def test_defaults_of_cnn_vaes_training_are_those_of_its_readings():
    options = {option.name: option for option in COMMANDS["train", "cnn-vae"].params}
    for name in ("steps", "batch", "learning_rate", "warmup", "cooldown", "ema_decay", "sr_weight"):
        ours, paper = (getattr(default_config(r), name) for r in ("corrected", "paper"))
        assert options[name].show_default == f"{ours:g}; the paper's {paper:g}"
    for name in ("alpha", "late_alpha", "late_steps", "seed"):
        assert options[name].show_default == f"{getattr(default_config('corrected'), name):g}"
