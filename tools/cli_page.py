"""Writes docs/cli.md, every command with its options, from the help that they have.

python tools/cli_page.py
"""

from collections.abc import Iterator
from enum import StrEnum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer

from vdsr_cli.cli.app import app

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
INTRODUCTION = """# Every option

What `vdsr COMMAND --help` says, written by `python tools/cli_page.py`.
"""


def commands(command: Any, name: str = "vdsr") -> Iterator[tuple[str, Any]]:
    """Every command below this one, and itself, with its full name."""
    yield name, command
    for word, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {word}")


def word(argument: Any) -> str:
    """What stands for an argument in the usage line."""
    name = str(argument.metavar or argument.name.upper())
    return f"{name}..." if argument.nargs == -1 else name


def values(option: Any, hint: Any) -> str:
    """What the option takes: its choices, its range, or nothing."""
    for kind in (hint, *get_args(hint)):
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return " or ".join(kind)
    least, most = getattr(option, "min", None), getattr(option, "max", None)
    if least is None and most is None:
        return ""
    return f"at least {least}" if most is None else f"{'' if least is None else least} to {most}"


def default(option: Any) -> str:
    """The value it has where it is left out; nothing where there is none to tell."""
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.default
    if not option.show_default or value is None or value == [] or callable(value):
        return ""
    if option.is_flag:
        both = [*option.opts, *option.secondary_opts]
        return both[not value] if option.secondary_opts else ""
    return str(getattr(value, "value", value))


def plain(parameter: Any) -> str:
    """Help without the marks that keep brackets from being markup."""
    return str(parameter.help or "").replace("\\[", "[")


def entry(option: Any, hint: Any) -> str:
    """One item of a list: names, purpose, values, default."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    facts = [values(option, hint), f"default: {told}" if (told := default(option)) else ""]
    known = "; ".join(fact for fact in facts if fact)
    return f"- {names}: {plain(option)}" + (f" ({known})" if known else "")


def section(name: str, command: Any) -> str:
    """A command: its help, its usage, its arguments and its options, group by group."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option"]
    text = f"## {name}\n\n{plain(command)}\n"
    if hasattr(command, "commands"):
        return text
    text += f"\n    {' '.join([name, '[OPTIONS]', *map(word, arguments)])}\n\n"
    text += "".join(f"- `{word(argument)}`: {plain(argument)}\n" for argument in arguments)
    hints = get_type_hints(command.callback)
    groups: dict[str, list[str]] = {}
    for option in options:
        group = getattr(option, "rich_help_panel", None) or "Options"
        groups.setdefault(group, []).append(entry(option, hints.get(option.name)))
    for group, entries in groups.items():
        text += f"\n{group}:\n\n" + "".join(f"{line}\n" for line in entries)
    return text


def page() -> str:
    """The whole of docs/cli.md."""
    root = typer.main.get_command(app)
    return "\n".join([INTRODUCTION, *(section(*pair) for pair in commands(root))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
