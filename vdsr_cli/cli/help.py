"""The help of a command, in groups and two columns that read well in 80.

What it says of an option is also what docs/cli.md says: see :func:`facts`.
"""

import re
from collections.abc import Iterable, Mapping
from enum import StrEnum
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

from rich.console import Console, Group, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

GROUPS: Final[Mapping[str, str]] = {
    "Picture": """model scale width height longest megapixels temperature conditional_temperature
        temperatures seed seeds samples count size consistency edges pixels sample_pixels wrap pick
        mask from_latents interpolate walk_steps truncated""",
    "Server": "host port open_page max_upload queue keep",
    "Run": """config preset start_from prior branch_from coupled likelihood_only fine_layers
        steps minutes save_every log_every tensorboard reading layers""",
    "Data": "data batch lr_size degradation fit symmetries rescale store",
    "Loss": "elbo_from rate_warmup mean_weight alpha late_alpha late_steps sr_weight",
    "Optimiser": """learning_rate warmup cooldown schedule grad_clip skip_above give_up_after
        weight_decay beta2 ema_decay""",
    "Scores": """protocol metrics metric_weights fid elbo weights against published worst verify
        list_sets val val_every val_limit limit scales codes draws every""",
    "Output": """out format quality depth suffix strip_metadata keep_times columns overwrite
        save_latents report csv plot crops card blend header as_json markdown quiet debug""",
    "Many files": "recursive dry_run max_pixels manifest retry_failed jobs offline",
    "Performance": "device dtype tile overlap batch_size compiled graph recompute workers",
    "Cluster": "engine ray_address",
}
"""Which options stand under which heading, by the names of their parameters."""
OTHERS: Final = "Options"
_LEFT: Final = 28
"""Columns of an option's names."""


def grouped(options: Iterable[Any]) -> dict[str, list[Any]]:
    """The options by heading: that which an option has itself, or that of ``GROUPS``, in order."""
    heading = {name: group for group, names in GROUPS.items() for name in names.split()}
    found: dict[str, list[Any]] = {}
    for option in options:
        group = getattr(option, "rich_help_panel", None) or heading.get(option.name, OTHERS)
        found.setdefault(group, []).append(option)
    order = [*GROUPS, *(group for group in found if group not in GROUPS)]
    return {group: found[group] for group in order if group in found}


def plain(parameter: Any) -> str:
    """Help without the marks that keep brackets from being markup."""
    return str(parameter.help or "").replace("\\[", "[")


def word(argument: Any) -> str:
    """The word for an argument in the usage line."""
    name = str(argument.metavar or argument.name.upper())
    return f"{name}..." if argument.nargs == -1 and not name.endswith("...") else name


def facts(option: Any, hints: Mapping[str, Any]) -> str:
    """The values that an option takes and its default, as far as there is something to say."""
    told = _default(option)
    parts = [_values(option, hints.get(option.name)), f"default: {told}" if told else ""]
    parts.append("required" if option.required else "")
    return "; ".join(part for part in parts if part)


def hints_of(command: Any) -> dict[str, Any]:
    """The types of a command's parameters, by name."""
    return get_type_hints(command.callback) if command.callback else {}


def _values(option: Any, hint: Any) -> str:
    for kind in (hint, *get_args(hint)):
        if get_origin(kind) is Literal:
            return " or ".join(get_args(kind))
        if isinstance(kind, type) and issubclass(kind, StrEnum):
            return " or ".join(kind)
    least, most = getattr(option, "min", None), getattr(option, "max", None)
    if least is None and most is None:
        return ""
    if most is None:
        return f"at least {least:.10g}"
    return f"{'' if least is None else f'{least:.10g}'} to {most:.10g}"


def _default(option: Any) -> str:
    if isinstance(option.show_default, str):
        return option.show_default
    value = option.default
    if not option.show_default or value is None or value == [] or callable(value):
        return ""
    if option.is_flag:
        both = [*option.opts, *option.secondary_opts]
        return str(both[not value]) if option.secondary_opts else ""
    return f"{value:g}" if isinstance(value, float) else str(getattr(value, "value", value))


def render(command: Any, path: str) -> RenderableType:
    """The whole help of a command, or of a group of them, that is called by these words."""
    arguments = [p for p in command.params if p.param_type_name == "argument"]
    options = [p for p in command.params if p.param_type_name == "option" and not p.hidden]
    hints = hints_of(command)
    below = getattr(command, "commands", {})
    words = ["COMMAND [ARGS]..."] if below else map(word, arguments)
    usage = Text(" ".join(["Usage:", path, "[OPTIONS]", *words]))
    parts: list[RenderableType] = [usage, "", *_paragraphs(plain(command)), ""]
    rows = [(word(argument), plain(argument), "") for argument in arguments]
    parts += _section("Arguments", rows)
    parts += _section("Commands", [(name, _sentence(plain(c)), "") for name, c in below.items()])
    for group, members in grouped(options).items():
        told = [(_names(option), plain(option), facts(option, hints)) for option in members]
        parts += _section(group, told)
    return Group(*parts)


def _sentence(text: str) -> str:
    """The first one."""
    return " ".join(text.split()).partition(". ")[0].rstrip(".") + "."


def _names(option: Any) -> str:
    names = sorted(option.opts, key=len)
    if not option.secondary_opts:
        return ", ".join(names)
    both = f"{', '.join(names)} / {', '.join(option.secondary_opts)}"
    return both if len(both) <= _LEFT else both.replace(" / ", " /\n")


def _paragraphs(text: str) -> list[RenderableType]:
    """Paragraphs wrapped anew; lines that are indented, such as examples, as they stand."""
    shown: list[RenderableType] = []
    for paragraph in re.split(r"\n\s*\n", text.strip("\n")):
        if paragraph.startswith("    "):
            shown.append(Text(paragraph, no_wrap=True, overflow="ignore"))
        else:
            shown.append(Text(" ".join(paragraph.split())))
        shown.append("")
    return shown[:-1]


def _section(heading: str, rows: list[tuple[str, str, str]]) -> list[RenderableType]:
    if not rows:
        return []
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(width=_LEFT)
    table.add_column()
    for names, told, known in rows:
        text = Text(told)
        if known:
            text.append(f" [{known}]", style="dim")
        table.add_row(Text(names, style="cyan"), text)
    return [Text(heading, style="bold"), Padding(table, (0, 0, 1, 2))]


def as_text(renderable: RenderableType) -> str:
    """As the terminal shows it, in its width and colours."""
    console = Console(highlight=False, markup=False)
    with console.capture() as captured:
        console.print(renderable)
    return captured.get()
