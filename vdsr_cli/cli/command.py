"""The base of every command: its help, and spellings of options that have changed."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import MISSING, fields, is_dataclass
from functools import wraps
from inspect import Parameter, Signature, signature
from itertools import pairwise
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.core import TyperCommand, TyperGroup

from vdsr_cli.cli.console import print_note
from vdsr_cli.cli.settings import as_lists, settings_of
from vdsr_cli.config import Wrap
from vdsr_cli.errors import UsageError
from vdsr_cli.paths import OUTPUT_SUFFIXES, VIDEO_SUFFIXES

_REFUSAL: type[Exception] = typer.BadParameter.__bases__[0]
"""The parser's errors, by the class that Typer does not name itself."""

RETIRED = {"--output": ("--pixels", "--out"), "--models": ("--model",)}
"""Spellings of options until 0.1, and what stands for them where a command has it."""

_MAY_BE_EMPTY = "--suffix"
"""The one option whose value may be empty."""

_SCALE_OR_SIZE = ({"scale"}, {"width", "height", "longest", "megapixels"})
"""Options that exclude each other."""


class Command(TyperCommand):
    """A command that takes retired spellings, a bare ``--wrap``, and options of ``vdsr.toml``."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """Parses today's spellings of the words, in front of what the user's files say."""
        held = {name: setting.value for name, setting in settings_of(ctx).items()}
        if isinstance(held.get("wrap"), bool):  # the flag that it was
            held["wrap"] = "xy" if held["wrap"] else "none"
        ctx.default_map = {**(ctx.default_map or {}), **as_lists(self, held)}
        _refuse_empty(args)
        with _in_one_line(ctx):
            rest = super().parse_args(ctx, list(self._in_todays_words(args)))
        _prefer_typed(ctx)
        return rest

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, in groups."""
        _write_help(self, ctx, formatter)

    def _in_todays_words(self, words: list[str]) -> Iterator[str]:
        known = {name for parameter in self.params for name in parameter.opts}
        for index, word in enumerate(words):
            if word == "--":
                yield from words[index:]
                return
            if word == "--wrap" and not {*words[index + 1 : index + 2]} & {*get_args(Wrap)}:
                yield "--wrap=xy"
                continue
            name, equals, value = word.partition("=")
            new = next((now for now in RETIRED.get(name, ()) if now in known), None)
            if new is None or name in known:
                yield word
            else:
                print_note(f"{name} is called {new} now; {name} will go with the next release")
                yield f"{new}{equals}{value}"


def _refuse_empty(words: list[str]) -> None:
    """Refuses an empty name or value, which would pass for the working folder."""
    for before, word in pairwise(["", *words]):
        is_option = word.startswith("--") and word.endswith("=")
        option = word[:-1] if is_option else before
        if (is_option or not word) and option != _MAY_BE_EMPTY:
            called = option if option.startswith("-") else "a name"
            raise UsageError(f"{called} is empty", hint="is a variable of the shell not set?")


def _prefer_typed(ctx: Any) -> None:
    """Leaves out a file's scale where a size is typed, a file's size where a scale is, its format
    where the output's name has one, and its JSON where the picture goes to standard output."""
    for these, those in (_SCALE_OR_SIZE, _SCALE_OR_SIZE[::-1]):
        if any(is_typed(ctx, name) for name in these):
            for name in filter(ctx.params.__contains__, those):
                if not is_typed(ctx, name):
                    ctx.params[name] = None
    out, inputs = ctx.params.get("out"), ctx.params.get("inputs") or ()
    if is_typed(ctx, "out") and "format" in ctx.params and not is_typed(ctx, "format"):
        names_format = Path(str(out)).suffix.lower() in OUTPUT_SUFFIXES | VIDEO_SUFFIXES
        ctx.params["format"] = None if names_format else ctx.params["format"]
    is_to_stdout = out == "-" or (out is None and "-" in inputs)
    if is_to_stdout and "as_json" in ctx.params and not is_typed(ctx, "as_json"):
        ctx.params["as_json"] = False


def is_typed(context: typer.Context, name: str) -> bool:
    """Whether a parameter's value is of the command line, not of a file or a default."""
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"


class Group(TyperGroup):
    """A group of commands that refuses words as they do, and without any shows its help."""

    def parse_args(self, ctx: Any, args: list[str]) -> Any:
        """As Typer's own."""
        if not args and not ctx.resilient_parsing:
            typer.echo(ctx.get_help(), err=True)
            raise typer.Exit(UsageError.exit_code)
        with _in_one_line(ctx):
            return super().parse_args(ctx, args)

    def resolve_command(self, ctx: Any, args: list[str]) -> Any:
        """As Typer's own."""
        with _in_one_line(ctx):
            return super().resolve_command(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Writes the help, with its commands."""
        _write_help(self, ctx, formatter)


def _write_help(command: Any, ctx: Any, formatter: Any) -> None:
    from vdsr_cli.cli.help import as_text, render

    formatter.write(as_text(render(command, ctx.command_path)))


@contextmanager
def _in_one_line(ctx: Any) -> Iterator[None]:
    """Has the error boundary tell what the parser refuses: Typer would need half a screen."""
    try:
        yield
    except _REFUSAL as error:
        told = " ".join(error.format_message().split()).rstrip(".")  # type: ignore[attr-defined]
        raise UsageError(told[:1].lower() + told[1:], hint=f"{ctx.command_path} -h") from error


class App(typer.Typer):
    """A Typer whose commands are of this kind, with ``-h`` for their help."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(
            cls=Group,
            context_settings={"help_option_names": ["-h", "--help"]},
            **settings,
        )

    def command(self, name: str | None = None, **settings: Any) -> Callable[..., Any]:
        """As Typer's own, for functions that take groups of options too: see :func:`spread`."""
        register = super().command(name, cls=Command, **settings)
        return lambda function: register(spread(function))


def spread(function: Callable[..., Any]) -> Callable[..., Any]:
    """A command of which each parameter that is a dataclass is an option for each of its fields."""
    hints = get_type_hints(function, include_extras=True)
    groups: dict[str, Any] = {name: hint for name, hint in hints.items() if is_dataclass(hint)}
    parameters: list[Parameter] = []
    for parameter in signature(function).parameters.values():
        group = groups.get(parameter.name)
        if group is None:
            parameters.append(
                parameter.replace(kind=Parameter.KEYWORD_ONLY, annotation=hints[parameter.name])
            )
            continue
        options = get_type_hints(group, include_extras=True)
        parameters += [
            Parameter(
                field.name,
                Parameter.KEYWORD_ONLY,
                default=Parameter.empty if field.default is MISSING else field.default,
                annotation=options[field.name],
            )
            for field in fields(group)
        ]

    @wraps(function)
    def command(**given: Any) -> Any:
        for name, group in groups.items():
            given[name] = group(**{field.name: given.pop(field.name) for field in fields(group)})
        return function(**given)

    command.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    command.__signature__ = Signature(parameters)  # type: ignore[attr-defined]  # read by Typer
    return command
