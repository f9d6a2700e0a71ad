"""The work of a run: a stream of pictures with their outputs, never held whole.

:func:`plan_outputs` of ``paths.py`` sees all sources and can settle any clash of names among them.
A folder of a hundred thousand pictures is not looked at whole before the first one starts; here a
name's output is decided by a few looks at the names beside it. :func:`takes_extension` is the
rule, and no two names of a folder have the same output by it.
"""

import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path, PurePath
from typing import Final

from vdsr_cli.errors import InputError
from vdsr_cli.formats import is_picture_file
from vdsr_cli.outputs import input_error
from vdsr_cli.paths import (
    INPUT_SUFFIXES,
    Naming,
    Source,
    is_picture_name,
    is_url,
    output_path,
    source_of,
    unread_error,
)

_BLOCK: Final = 10_000
"""Names that are sorted together: small folders come out in order, large ones at once."""
_SPELLINGS: Final = tuple(sorted({*INPUT_SUFFIXES, *(e.upper() for e in INPUT_SUFFIXES)}))
_ENDS: Final = ("", *_SPELLINGS)
"""The endings that may stand behind a picture's stem."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One picture to make.

    Attributes:
        input: path or URL of what is read; what messages call it.
        output: path or URL of the result; None for standard output.
        is_retry: whether an attempt that was cut off may have left the output, which is then
            replaced.
    """

    input: str
    output: str | None
    is_stdin: bool = False
    is_retry: bool = False


def work_on(source: Source, output: Path | None, address: Callable[[Path], str] = str) -> Work:
    """The work that a planned source is.

    Args:
        address: what an output's path stands for, such as a URL.
    """
    return Work(
        input=str(source.path),
        output=None if output is None else address(output),
        is_stdin=source.is_stdin,
    )


def joined(url: str, name: str) -> str:
    """A name below a URL."""
    return f"{url.rstrip('/')}/{name}"


def absolute(address: str) -> str:
    """The address for whoever works in another folder; a URL is the same everywhere."""
    return address if is_url(address) else os.path.abspath(address)


def takes_extension(name: str, has: Callable[[str], bool]) -> bool:
    """Whether the output of a picture carries its extension, as in ``a_jpg_x4.png``: pure.

    Two outputs without it are the same where the stems are (``a.jpg``, ``a.png``); one with it is
    the same as one without where that one's stem ends in it (``a.jpg``, ``a_jpg.png``). Two with
    it never are, since no extension has an underscore. A name that has none, as ``a``, keeps its
    output where it can, and else takes the underscore alone.

    Args:
        has: whether its folder has another picture of the name asked for.
    """
    stem, suffix = PurePath(name).stem, PurePath(name).suffix
    if suffix and (suffix not in _SPELLINGS or any(has(stem + e) for e in _ENDS if e != suffix)):
        return True
    twin = _unlengthened(stem)
    return twin is not None and has(twin) and takes_extension(twin, has)


def planned_output(source: Source, naming: Naming, has: Callable[[str], bool]) -> Path | None:
    """The output of a picture of a folder: with its extension in the name where it needs that.

    Where outputs keep their inputs' extensions, names differ as those do; an output of another
    format has its input's extension in its name, and so has one that would be called like that.
    """
    name, suffix = source.path.name, source.path.suffix
    if naming.keeps != "all":
        is_long = takes_extension(name, has)
    else:
        twin = _unlengthened(source.path.stem)
        has_twin = twin is not None and has(twin)
        is_long = has_twin or (
            suffix != "" and (source.own_suffix != suffix or has(source.path.stem))
        )
    if is_long and not suffix:
        source = replace(source, path=source.path.with_name(f"{name}_"))
    return output_path(source, naming, depth=int(is_long))


def _unlengthened(stem: str) -> str | None:
    """``a.jpg`` for ``a_jpg``, and ``a`` for ``a_``: the name whose lengthened output would be
    that of this stem."""
    base, _, extension = stem.rpartition("_")
    if not base:
        return None
    return f"{base}.{extension}" if extension else base


def _raise(error: InputError) -> None:
    raise error


@dataclass(slots=True, kw_only=True)
class FolderListing:
    """The pictures of one folder, each with its output, found while they are asked for.

    Left out are what lies in the folder of -o, when that is inside this one, and earlier outputs
    of this scale beside what they were made from, as by :func:`~vdsr_cli.paths.drop_own_outputs`,
    with what else a run leaves there. Links to folders are not followed.

    Attributes:
        address: what an output's path stands for, such as a URL.
        recursive: whether to look below it too, keeping its tree.
        own_outputs: how many earlier outputs have been left out so far.
        on_unknown: told of each file of another format than can be read.
        on_unread: told, after all pictures, of each folder that cannot be listed; it ends the
            listing unless something else is to become of it.
        unknown: how many files of other formats than can be read have been passed so far.
    """

    folder: Path
    naming: Naming
    address: Callable[[Path], str] = str
    recursive: bool = False
    on_unknown: Callable[[str], None] = lambda path: None
    on_unread: Callable[[InputError], None] = _raise
    own_outputs: int = field(default=0, init=False)
    unknown: int = field(default=0, init=False)
    _known: dict[Path, bool] = field(default_factory=dict, init=False)

    def __iter__(self) -> Iterator[Work]:
        """Yields every picture once.

        Raises:
            InputError: there is none.
            UsageError: an output would replace a picture of the folder.
        """
        unread: list[InputError] = []
        is_empty = True
        for entry in self._entries(unread):
            is_empty = False
            has = _neighbours(entry)
            if self._is_own_output(entry.name, has):
                self.own_outputs += 1
                continue
            source = source_of(Path(entry.path), self.folder)
            output = planned_output(source, self.naming, has)
            self._refuse_replacing(output)
            yield work_on(source, output, self.address)
        if is_empty and unread:
            raise unread[0]
        for closed in unread:
            self.on_unread(closed)
        if is_empty:
            raise InputError(
                f"{self.folder}: no pictures in this folder",
                hint=None if self.recursive else "-r looks into the folders below it too",
            )

    def count(self) -> Iterator[int]:
        """Yields how many pictures have been found, while it looks for them by itself: their names
        alone, before any of them is decided on."""
        own = replace(self, on_unknown=lambda path: None)
        found = 0
        for entry in own._entries([]):
            if not own._is_own_output(entry.name, _neighbours(entry)):
                found += 1
                yield found

    def _entries(self, unread: list[InputError]) -> Iterator["os.DirEntry[str]"]:
        """The pictures of the folder, then those of the folders below it, each before its own."""
        folders = [self.folder]
        while folders:
            folder, below = folders.pop(), list[Path]()
            try:
                yield from self._entries_of(folder, below)
            except OSError as error:
                unread.append(unread_error(folder, error))
            folders += sorted(below, reverse=True)

    def _entries_of(self, folder: Path, below: list[Path]) -> Iterator["os.DirEntry[str]"]:
        """The pictures of one folder; notes the folders below it. Raises OSError."""
        with os.scandir(folder) as entries:
            while block := list(islice(entries, _BLOCK)):
                for entry in sorted(block, key=lambda entry: entry.name):
                    if self.recursive and entry.is_dir(follow_symlinks=False):
                        path = Path(entry.path)
                        if not entry.name.startswith(".") and not self._is_output_folder(path):
                            below.append(path)
                    elif entry.name.startswith(".") or not _is_file(entry):
                        continue
                    elif is_picture_name(entry.name) or is_picture_file(Path(entry.path)):
                        yield entry
                    elif not self.naming.is_left(entry.name):
                        self.unknown += 1
                        self.on_unknown(entry.path)

    def _is_output_folder(self, path: Path) -> bool:
        out = self.naming.folder
        return out is not None and os.path.exists(out) and os.path.samefile(path, out)

    def _is_own_output(self, name: str, has: Callable[[str], bool]) -> bool:
        stem = PurePath(name).stem
        base = stem.removesuffix(self.naming.mark)
        if base == stem:
            return False
        twin = _unlengthened(base)
        return any(has(base + e) for e in _ENDS) or (twin is not None and has(twin))

    def _refuse_replacing(self, output: Path | None) -> None:
        """An output may lie among the inputs only where it is left out of them: by its mark beside
        what it is made from, or in a folder of -o that is inside theirs; and neither by way of a
        link."""
        if output is None or not os.path.lexists(output):
            return
        is_link, out = os.path.islink(output), self.naming.folder
        if out is None or (os.path.exists(out) and os.path.samefile(out, self.folder)):
            is_left_out = self.naming.mark != ""
        else:
            is_left_out = self._leads_among(out)
        if is_left_out and not is_link:
            return
        if self._leads_among(output if is_link else output.parent):
            raise input_error(output)

    def _leads_among(self, path: Path) -> bool:
        if path not in self._known:
            self._known[path] = _is_within(path, self.folder)
        return self._known[path]


def _is_within(path: Path, folder: Path) -> bool:
    """Whether a path leads into a folder, or is it, whatever it is called."""
    real = Path(os.path.realpath(path))
    above = [place for place in (real, *real.parents) if os.path.exists(place)]
    return any(os.path.samefile(place, folder) for place in above)


def _is_file(entry: "os.DirEntry[str]") -> bool:
    """Whether it is a file, or was one when the folder was read: reading it tells what became."""
    return entry.is_file(follow_symlinks=False) or os.path.isfile(entry.path)


def _neighbours(entry: "os.DirEntry[str]") -> Callable[[str], bool]:
    """Whether the folder of an entry has another picture of a name.

    On a disk that takes ``a.PNG`` for ``a.png``, the entry itself is no other file.
    """
    folder = os.path.dirname(entry.path)

    def has(name: str) -> bool:
        try:
            found = os.lstat(os.path.join(folder, name))
            own = os.lstat(entry.path)
        except OSError:
            return False
        is_itself = found.st_nlink == 1 and os.path.samestat(found, own)
        if is_itself or stat.S_ISDIR(found.st_mode):
            return False
        return is_picture_name(name) or is_picture_file(Path(folder, name))

    return has
