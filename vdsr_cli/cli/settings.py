"""``vdsr.toml``: options that hold without being typed, and ``vdsr config``, which shows them.

    device = "cuda:1"          of every command that has the option

    [upscale]
    temperature = 0.5

    [train.vdvae-sr]
    batch = 8

The file of the working folder goes before that of the user's configuration folder; the command
line goes before both. What replaces files or reaches other machines is not taken from a working
folder, which may be anybody's: a folder unpacked or cloned.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

import typer

from vdsr_cli.cli.console import print_line
from vdsr_cli.cli.options import JsonOption
from vdsr_cli.config import read_toml
from vdsr_cli.errors import UsageError

NAME: Final = "vdsr.toml"
_OF_THE_USER: Final = frozenset({"host", "engine", "ray-address"})
"""Options that reach other machines, beside an ``out`` that is a URL."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Setting:
    """An option's value and the file that says so."""

    command: str
    option: str
    value: Any
    file: str


def setting_files() -> list[Path]:
    """Where options may stand, the file that goes before first; whether they exist or not."""
    from platformdirs import user_config_path

    return [Path(NAME), user_config_path("vdsr") / NAME]


def settings_of(context: Any) -> dict[str, Setting]:
    """Values that the files give a command's options, by the names of its parameters.

    Raises:
        UsageError: a file that cannot be read, or that names what no command has.
    """
    root = context.find_root()
    words = context.command_path.removeprefix(root.command_path).split()
    found: dict[str, Setting] = {}
    files = setting_files()
    own = files[-1]
    for path in reversed(files):
        if path.is_file():
            tables = read_toml(path)
            is_users = own.is_file() and path.samefile(own)
            _check(path, tables, root.command, is_users=is_users)
            found |= _entries(path, tables, words, context.command)
    return found


def _entries(
    path: Path, tables: Mapping[str, Any], words: list[str], command: Any
) -> dict[str, Setting]:
    """The entries at the top and in the tables on the way to a command, the inner ones last."""
    options = options_by_spelling(command)
    found: dict[str, Setting] = {}
    level: Mapping[str, Any] = tables
    for depth in range(len(words) + 1):
        for key, value in level.items():
            name = options.get(spelled(key))
            if name is not None and not isinstance(value, dict):
                found[name] = Setting(
                    command=" ".join(words), option=spelled(key), value=value, file=str(path)
                )
        level = level.get(words[depth], {}) if depth < len(words) else {}
    return found


def _check(
    path: Path, tables: Mapping[str, Any], command: Any, name: str = "", *, is_users: bool
) -> None:
    """Refuses entries that no command below this one has, tables of no command, and what may stand
    in the user's own file alone."""
    below = getattr(command, "commands", {})
    known = {option for one in _all_below(command) for option in options_by_spelling(one)}
    for key, value in tables.items():
        if isinstance(value, dict) and key in below:
            _check(path, value, below[key], f"{name}{key}.", is_users=is_users)
        elif isinstance(value, dict) or spelled(key) not in known:
            raise UsageError(f"{path}: {name}{key} is no command or option", hint="vdsr config -h")
        elif not is_users and _is_for_the_user(spelled(key), value):
            raise UsageError(
                f"{path}: {name}{key} is not taken from the working folder",
                hint=f"give it on the command line, or in {setting_files()[1]}",
            )


def _is_for_the_user(option: str, value: Any) -> bool:
    """Whether an entry replaces files or reaches other machines."""
    if option == "overwrite":
        return bool(value)
    values = value if isinstance(value, list) else [value]
    return option in _OF_THE_USER or any("://" in str(each) for each in values)


def _all_below(command: Any) -> Iterator[Any]:
    yield command
    for one in getattr(command, "commands", {}).values():
        yield from _all_below(one)


def options_by_spelling(command: Any) -> dict[str, str]:
    """The names of parameters by the long names of options, without dashes."""
    return {
        spelled(name): parameter.name
        for parameter in command.params
        if parameter.param_type_name == "option"
        for name in parameter.opts
        if name.startswith("--")
    }


def as_lists(command: Any, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a command's parameters, a text as a list of one where there may be several."""
    several = {one.name for one in command.params if getattr(one, "multiple", False)}
    return {
        name: [value] if name in several and isinstance(value, str) else value
        for name, value in values.items()
    }


def spelled(key: str) -> str:
    """An option's name without dashes in front, as it is typed: ``--lr_size`` -> ``lr-size``."""
    return key.removeprefix("--").replace("_", "-")


def config(
    context: typer.Context,
    as_json: JsonOption = False,
) -> None:
    """Show which options hold without being typed, and which file says so.

    The files are vdsr.toml in the working folder and in the user's configuration folder, the
    former first; the command line goes before both. What replaces files (overwrite) or reaches
    other machines (host, engine, ray-address, an out that is a URL) holds in the latter alone. An
    entry at the top is of every command that has the option, one in a table such as \\[upscale] or
    \\[train.vdvae-sr] of that command.

    Examples:

        vdsr config
        vdsr config --json
        vdsr config --json > options.json
    """
    root = context.find_root()
    files = setting_files()
    held = [s for one in _contexts(root) for s in settings_of(one).values()]
    if as_json:
        rows = [{"path": str(path), "is_there": path.is_file()} for path in files]
        typer.echo(json.dumps({"files": rows, "options": [asdict(s) for s in held]}, indent=2))
        return
    for path in files:
        print_line(f"{path} ({'read' if path.is_file() else 'not there'})")
    for setting in held:
        told = json.dumps(setting.value, ensure_ascii=False)
        print_line(f"vdsr {setting.command} --{setting.option} {told}, by {setting.file}")


def _contexts(parent: Any) -> Iterator[Any]:
    """A context for each command that does something."""
    for name, command in getattr(parent.command, "commands", {}).items():
        context = command.context_class(command, info_name=name, parent=parent)
        if hasattr(command, "commands"):
            yield from _contexts(context)
        else:
            yield context
