"""Which pictures a command reads, and what their outputs are called.

Three steps: :func:`expand_inputs` turns the arguments into sources, :func:`drop_own_outputs`
leaves out what an earlier run wrote, :func:`plan_outputs` gives each source its output. Only the
first and :func:`plan_naming` look at the disk; the rest is pure, so that the same arguments
always give the same names. Whether an output is an input is looked at by ``outputs.py``.

The names:

    photo.jpg                      photo_x4.png beside it (photo_x2.5.png at --scale 2.5)
    photo.jpg -o big.webp          big.webp
    photo.jpg -o out/              out/photo_x4.png
    photo.jpg -o out               the same: a name without an extension is a folder
    shots -r -o out                out/ with the tree of shots
    clip.mp4                       clip_x4.mp4
    anim.gif, pages.tif            anim_x4.gif, pages_x4.tif: what holds several keeps its format
    photo.jpg --format same        photo_x4.jpg
    a.jpg a.png                    a_jpg_x4.png and a_png_x4.png: two sources never share a name
    - (standard input)             standard output, or stdin_x4.png in the folder of -o
"""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from glob import glob, has_magic
from pathlib import Path
from typing import Final, Literal

from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.formats import content_of, is_picture_file

OUTPUT_SUFFIXES: Final = {
    ".png": "png",
    ".apng": "png",
    ".jpg": "jpg",
    ".jpeg": "jpg",
    ".webp": "webp",
    ".tiff": "tiff",
    ".tif": "tiff",
    ".avif": "avif",
    ".bmp": "bmp",
    ".gif": "gif",
    ".heic": "heif",
    ".heif": "heif",
    ".hif": "heif",
    ".jxl": "jxl",
}
"""Extension of an output -> its format. The first extension of a format is the one we write."""
VIDEO_SUFFIXES: Final = {
    ".mp4": "mp4",
    ".m4v": "mp4",
    ".mov": "mov",
    ".mkv": "mkv",
    ".webm": "webm",
}
"""Likewise, of a video."""

INPUT_SUFFIXES: Final = frozenset(
    {*OUTPUT_SUFFIXES, ".jpe", ".jfif", ".mpo", ".dib", ".pbm", ".pgm", ".ppm", ".pnm"}
)
"""Extensions (lower case) of the files that a folder or a pattern contributes."""

DEFAULT_FORMAT: Final = "png"
SAME_FORMAT: Final = "same"
"""The value of --format by which each output is of its input's."""

MANIFEST_NAME: Final = "vdsr-manifest.jsonl"
"""Name of the manifest of a run over one folder, in the folder of -o."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One picture to read.

    ``root`` is the folder that a folder or pattern argument started from, whose tree is kept
    under -o; None for a file that was named itself and for standard input. ``own_suffix`` is the
    extension of an output of the same format, None where that is not written; ``is_several`` is
    whether it is an animation or has pages.
    """

    path: Path
    root: Path | None = None
    is_stdin: bool = False
    own_suffix: str | None = None
    is_several: bool = False


STDIN: Final = Source(path=Path("stdin"), is_stdin=True)
"""The argument ``-``; its path is only what outputs and messages call it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Naming:
    """How outputs are called.

    Attributes:
        tag: what stands behind the stem, as ``x4`` in ``photo_x4.png``.
        text: stands there in place of the tag and its underscore; it may be empty.
        suffix: the extension of an output whose name is not given, with its dot.
        keeps: which outputs have the extension of their own input's format in its place.
        folder: where outputs go; None for beside the input.
        file: the one output's own path, or None. Excludes ``folder``.
        is_stdout: whether the one output goes to standard output. Excludes both.
    """

    tag: str
    text: str | None = None
    suffix: str = ".png"
    keeps: Literal["none", "several", "all"] = "several"
    folder: Path | None = None
    file: Path | None = None
    is_stdout: bool = False

    def __post_init__(self) -> None:
        if (self.folder is not None) + (self.file is not None) + self.is_stdout > 1:
            raise ValueError("folder, file and is_stdout exclude each other")

    @property
    def mark(self) -> str:
        """The part of an output's name that its input's lacks."""
        return f"_{self.tag}" if self.text is None else self.text

    def is_left(self, name: str) -> bool:
        """Whether a run leaves a file of this name beside its outputs: its manifest, or what an
        unfinished output is resumed from."""
        output, part, rest = name.rpartition(".part")
        is_output = self.mark != "" and Path(output).stem.endswith(self.mark)
        return name == MANIFEST_NAME or (is_output and part != "" and rest in ("", ".json"))

    def suffix_of(self, source: Source) -> str:
        """The extension of a source's output whose name is not given."""
        is_kept = self.keeps == "all" or (self.keeps == "several" and source.is_several)
        return source.own_suffix if is_kept and source.own_suffix else self.suffix


def is_url(address: str) -> bool:
    """Whether this is the URL of a store rather than a path."""
    return "://" in address


def printable(text: str) -> str:
    """A text with file names in it as one line that no terminal obeys: line breaks and control
    characters are escapes, bytes that are no UTF-8 stay as they are."""
    return "".join(
        c if c.isprintable() or "\udc80" <= c <= "\udcff" else repr(c)[1:-1] for c in text
    )


def files_below(
    folder: Path,
    *,
    hidden: bool = False,
    on_unread: Callable[[InputError], None] = lambda error: None,
) -> Iterator[Path]:
    """Every file below a folder, however deep; what cannot be listed is told and left out.

    Links to folders are not followed. Without ``hidden``, folders whose names begin with a dot are
    not looked into.
    """
    folders = [folder]
    while folders:
        above = folders.pop()
        try:
            with os.scandir(above) as entries:
                for entry in entries:
                    if not entry.is_dir(follow_symlinks=False):
                        yield above / entry.name
                    elif hidden or not entry.name.startswith("."):
                        folders.append(above / entry.name)
        except OSError as error:
            on_unread(unread_error(above, error))


def unread_error(folder: Path, error: OSError) -> InputError:
    """The error for a folder that cannot be listed."""
    return InputError(f"{folder}: cannot be read: {(error.strerror or str(error)).lower()}")


def scale_tag(scale: float) -> str:
    """The name of a scale in file names: 4 -> ``x4``, 2.5 -> ``x2.5``."""
    return f"x{scale:g}"


def output_format(path: Path) -> str:
    """The format that a path's extension names, as in ``OUTPUT_SUFFIXES``.

    Raises:
        UsageError: the extension is none that can be written.
    """
    return _format_named(path, OUTPUT_SUFFIXES, "picture")


def video_format(path: Path) -> str:
    """The format that a path's extension names, as in ``VIDEO_SUFFIXES``.

    Raises:
        UsageError: the extension is none that can be written.
    """
    return _format_named(path, VIDEO_SUFFIXES, "video")


def _format_named(path: Path, suffixes: Mapping[str, str], what: str) -> str:
    try:
        return suffixes[path.suffix.lower()]
    except KeyError:
        raise UsageError(
            f"{path}: {path.suffix or 'no extension'} is no {what} format that can be written",
            hint=f"use one of {', '.join(suffixes)}; end a folder's name in {os.sep}",
        ) from None


def plan_naming(
    out: str | None,
    *,
    tag: str,
    format: str | None = None,
    is_several: bool = False,
    takes_videos: bool = False,
) -> Naming:
    """The naming that -o and --format ask for.

    Args:
        out: the value of -o as it was typed, for its trailing separator counts: ``-`` is
            standard output; an existing folder, a name ending in a separator or one without an
            extension is a folder; anything else is a file whose extension names the format.
        format: the value of --format, a value of ``OUTPUT_SUFFIXES`` or ``SAME_FORMAT``; None for
            -o's own, or that of animations and documents and else PNG.
        is_several: whether more than one output may come, so that a name whose extension is no
            format, as in ``out/t0.8``, is a folder too.
        takes_videos: whether the output may be one.

    Raises:
        UsageError: an extension or format that cannot be written, or the two disagree.
    """
    keeps: Literal["none", "several", "all"]
    keeps = "several" if format is None else "all" if format == SAME_FORMAT else "none"
    suffix = _suffix_of(format if format and keeps == "none" else DEFAULT_FORMAT)
    if out is None:
        return Naming(tag=tag, suffix=suffix, keeps=keeps)
    if out == "-":
        return Naming(tag=tag, suffix=suffix, keeps=keeps, is_stdout=True)
    path = Path(out)
    is_video = takes_videos and path.suffix.lower() in VIDEO_SUFFIXES
    is_dotted = is_several and not is_video and path.suffix.lower() not in OUTPUT_SUFFIXES
    if _names_folder(out) or (is_dotted and not os.path.exists(path)):
        return Naming(tag=tag, suffix=suffix, keeps=keeps, folder=path)
    named = video_format(path) if is_video else output_format(path)
    if format not in (None, named):
        raise UsageError(
            f"-o {out} and --format {format} disagree", hint="leave one of the two out"
        )
    return Naming(tag=tag, suffix=path.suffix if is_video else _suffix_of(named), file=path)


def _suffix_of(format: str) -> str:
    for suffix, name in (OUTPUT_SUFFIXES | VIDEO_SUFFIXES).items():
        if name == format:
            return suffix
    formats = ", ".join(dict.fromkeys(OUTPUT_SUFFIXES.values()))
    raise UsageError(f"--format {format} is unknown", hint=f"use one of {formats}")


def _names_folder(out: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    path = Path(out)
    # os.path answers no, where Path raises, for what may not be looked at.
    is_folder = out.endswith(separators) or os.path.isdir(path)
    return is_folder or not (path.suffix or os.path.exists(path))


def output_path(source: Source, naming: Naming, *, depth: int = 0) -> Path | None:
    """The output of one source: pure. None is standard output.

    Args:
        depth: how much of the source's path goes into the name, against clashes: 0 the stem
            (``a_x4.png``), 1 its extension too (``a_jpg_x4.png``), 2 the folder above too
            (``shots_a_jpg_x4.png``), and so on.
    """
    if naming.is_stdout or (source.is_stdin and not (naming.file or naming.folder)):
        return None
    if naming.file is not None:
        return naming.file
    name = f"{long_stem(source.path, depth)}{naming.mark}{naming.suffix_of(source)}"
    if naming.folder is None:
        return source.path.parent / name
    if source.root is None:
        return naming.folder / name
    return naming.folder / source.path.relative_to(source.root).parent / name


def long_stem(path: Path, depth: int) -> str:
    """The stem of a path with as much of the rest as ``depth`` of :func:`output_path` says."""
    if depth == 0:
        return path.stem
    above = [part for part in path.parent.parts if part not in (path.anchor, "..")]
    extension = [path.suffix[1:]] if path.suffix else []
    start = max(0, len(above) - (depth - 1))
    return "_".join([*above[start:], path.stem, *extension])


def plan_outputs(sources: Sequence[Source], naming: Naming) -> list[Path | None]:
    """The output of each source, no two alike: pure, and independent of the sources' order.

    Sources whose outputs would share a name take more and more of their path into it. Names
    that differ in case alone count as the same, since on many disks they are, unless the
    sources' own paths differ no more than that.

    Raises:
        UsageError: several sources for one file or for standard output, or a clash that even
            whole paths do not settle.
    """
    if len(sources) > 1 and (naming.file is not None or naming.is_stdout):
        target = naming.file or "standard output"
        raise UsageError(
            f"{len(sources)} pictures cannot all go into {target}", hint="give -o a folder"
        )
    outputs = _settled(sources, naming, _folded) or _settled(sources, naming, os.path.abspath)
    if outputs is None:
        raise UsageError(
            "two of the pictures would be written to the same file",
            hint="give -o for each of them, one run after the other",
        )
    return outputs


def _settled(
    sources: Sequence[Source], naming: Naming, key: Callable[[Path], str]
) -> list[Path | None] | None:
    """Outputs with distinct keys, clashing ones lengthened; None when whole paths clash."""
    depths = [0] * len(sources)
    while True:
        outputs = [
            output_path(source, naming, depth=depth)
            for source, depth in zip(sources, depths, strict=True)
        ]
        keys = ["" if output is None else key(output) for output in outputs]
        counts = Counter(keys)
        clashing = [index for index, name in enumerate(keys) if name and counts[name] > 1]
        if not clashing:
            return outputs
        if any(depths[index] > len(sources[index].path.parts) for index in clashing):
            return None
        for index in clashing:
            depths[index] += 1


def _folded(path: Path) -> str:
    return os.path.abspath(path).casefold()


def expand_inputs(
    arguments: Sequence[str],
    *,
    recursive: bool = False,
    on_unknown: Callable[[Path], None] = lambda path: None,
    on_unread: Callable[[InputError], None] = lambda error: None,
) -> list[Source]:
    """The pictures that the arguments name, each once, in their order.

    A file stands for itself, whether it exists or not: reading it will tell. A folder stands for
    the pictures in it, and below it when ``recursive``, sorted; a pattern (``'shots/*.jpg'``, in
    quotes, where ``**`` reaches below) for the pictures that it matches. Folders and patterns
    contribute only files with an extension of ``INPUT_SUFFIXES``, or that begin as pictures do, and
    none whose name starts with a dot. Links to folders are not followed.

    Args:
        on_unknown: told of each other file in a folder, or that a pattern matches.
        on_unread: told of each folder below one, when ``recursive``, that cannot be listed.

    Raises:
        InputError: a folder or pattern without a picture.
        UsageError: ``-`` is given twice.
    """
    if arguments.count("-") > 1:
        raise UsageError("standard input can be read only once", hint="give - once")
    seen: set[str] = set()
    sources: list[Source] = []
    for argument in arguments:
        for source in _expand(argument, recursive, on_unknown, on_unread):
            key = "-" if source.is_stdin else os.path.realpath(source.path)
            if key not in seen:
                seen.add(key)
                sources.append(source)
    return sources


def may_be_several(arguments: Sequence[str]) -> bool:
    """Whether the arguments, paths or a URL, may stand for more than one picture."""
    kinds = (is_url, os.path.isdir, _is_pattern)
    return len(arguments) != 1 or any(is_kind(arguments[0]) for is_kind in kinds)


def _is_pattern(argument: str) -> bool:
    return has_magic(argument) and not os.path.lexists(argument)


def _expand(
    argument: str,
    recursive: bool,
    on_unknown: Callable[[Path], None],
    on_unread: Callable[[InputError], None],
) -> list[Source]:
    if argument == "-":
        return [STDIN]
    path = Path(argument)
    if os.path.isdir(path):
        return _from_folder(path, recursive, on_unknown, on_unread)
    if _is_pattern(argument):
        return _from_pattern(argument, on_unknown)
    return [source_of(path)]


def source_of(path: Path, root: Path | None = None) -> Source:
    """A file as a source, by its content, or by its name where it cannot be looked at."""
    content = content_of(path)
    named = OUTPUT_SUFFIXES.get(path.suffix.lower())
    if content is None:
        return Source(path=path, root=root, own_suffix=path.suffix if named else None)
    if content.is_video:
        named = VIDEO_SUFFIXES.get(path.suffix.lower())
    own = None if content.format is None else _suffix_of(content.format)
    return Source(
        path=path,
        root=root,
        own_suffix=path.suffix if named is not None and named == content.format else own,
        is_several=content.is_several,
    )


def _from_folder(
    folder: Path,
    recursive: bool,
    on_unknown: Callable[[Path], None],
    on_unread: Callable[[InputError], None],
) -> list[Source]:
    unread: list[InputError] = []
    try:
        listed = files_below(folder, on_unread=unread.append) if recursive else folder.iterdir()
        found = _pictures(listed, on_unknown)
    except OSError as error:
        raise unread_error(folder, error) from error
    if unread and not found:
        raise unread[0]
    for closed in unread:
        on_unread(closed)
    if not found:
        raise InputError(
            f"{folder}: no pictures in this folder",
            hint=None if recursive else "-r looks into the folders below it too",
        )
    return [source_of(path, folder) for path in found]


def _from_pattern(pattern: str, on_unknown: Callable[[Path], None]) -> list[Source]:
    try:
        found = _pictures(map(Path, glob(pattern, recursive=True)), on_unknown)
    except RecursionError:
        raise InputError(
            f"{pattern}: folders are too deep for a pattern", hint="give the folder, with -r"
        ) from None
    if not found:
        raise InputError(f"{pattern}: no picture matches this pattern")
    root = _plain_start(pattern)
    return [source_of(path, root) for path in found]


def _plain_start(pattern: str) -> Path:
    """The folders at the start of a pattern, up to the first with a wildcard."""
    plain: list[str] = []
    for part in Path(pattern).parts[:-1]:
        if has_magic(part):
            break
        plain.append(part)
    return Path(*plain)


def is_picture_name(name: str) -> bool:
    """Whether a folder or pattern contributes a file of this name."""
    return Path(name).suffix.lower() in INPUT_SUFFIXES and not name.startswith(".")


def _pictures(paths: Iterable[Path], on_unknown: Callable[[Path], None]) -> list[Path]:
    """The pictures among some paths, sorted; folders and hidden files are passed by."""
    found = []
    for path in sorted(paths):
        if path.name.startswith(".") or not os.path.isfile(path):
            continue
        if is_picture_name(path.name) or is_picture_file(path):
            found.append(path)
        else:
            on_unknown(path)
    return found


def drop_own_outputs(
    sources: Iterable[Source], naming: Naming
) -> tuple[list[Source], list[Source]]:
    """Split sources into those to read and those that look like our own earlier outputs: pure.

    So a second run over a folder does not enlarge the results of the first. Left out are, of the
    sources that a folder or pattern contributed (a file that was named itself is always read):

    - ``NAME_TAG.EXT`` beside another source called ``NAME.*`` or, for ``NAME_jpg_TAG.EXT``,
      ``NAME.jpg``, where TAG is this run's (so pictures of another scale are still read);
    - what lies in the folder of -o, when that is a folder inside the source's own root.
    """
    listed = list(sources)
    stems = {_stem_key(s.path.parent, long_stem(s.path, depth)) for s in listed for depth in (0, 1)}
    kept: list[Source] = []
    dropped: list[Source] = []
    for source in listed:
        is_ours = source.root is not None and (
            _is_tagged(source.path, naming.mark, stems) or _is_under_output(source, naming.folder)
        )
        (dropped if is_ours else kept).append(source)
    return kept, dropped


def _stem_key(folder: Path, stem: str) -> str:
    return os.path.join(os.path.abspath(folder), stem)


def _is_tagged(path: Path, mark: str, stems: set[str]) -> bool:
    untagged = path.stem.removesuffix(mark)
    return untagged != path.stem and _stem_key(path.parent, untagged) in stems


def _is_under_output(source: Source, folder: Path | None) -> bool:
    if folder is None or source.root is None:
        return False
    out, root = Path(os.path.abspath(folder)), Path(os.path.abspath(source.root))
    is_inside_root = root != out and out.is_relative_to(root)
    return is_inside_root and Path(os.path.abspath(source.path)).is_relative_to(out)
