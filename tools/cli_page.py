"""Writes docs/cli.md, every command with its options, from the help that they have.

python tools/cli_page.py
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import typer

from vdsr_cli.cli.app import app
from vdsr_cli.cli.help import facts, grouped, hints_of, plain, word

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
INTRODUCTION = """# Every option

What `vdsr COMMAND --help` says, written by `python tools/cli_page.py`.
"""


def commands(command: Any, name: str = "vdsr") -> Iterator[tuple[str, Any]]:
    """Every command below this one, and itself, with its full name."""
    yield name, command
    for called, below in getattr(command, "commands", {}).items():
        yield from commands(below, f"{name} {called}")


def entry(option: Any, hints: Mapping[str, Any]) -> str:
    """One item of a list: names, purpose, values, default."""
    names = ", ".join(f"`{name}`" for name in [*option.opts, *option.secondary_opts])
    known = facts(option, hints)
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
    hints = hints_of(command)
    for group, members in grouped(options).items():
        lines = [entry(option, hints) for option in members]
        text += f"\n{group}:\n\n" + "".join(f"{line}\n" for line in lines)
    return text


def page() -> str:
    """The whole of docs/cli.md."""
    root = typer.main.get_command(app)
    return "\n".join([INTRODUCTION, *(section(*pair) for pair in commands(root))])


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
