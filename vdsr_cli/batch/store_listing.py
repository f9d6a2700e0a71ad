"""The work of a run whose pictures are in a store: a stream, as of a folder."""

import posixpath
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from vdsr_cli.batch.listing import Work, joined, planned_output, work_on
from vdsr_cli.batch.storage import S3, exists, failing_as, open_store, protocol_of
from vdsr_cli.errors import InputError, UsageError
from vdsr_cli.paths import OUTPUT_SUFFIXES, Naming, Source, is_picture_name, output_path


@dataclass(slots=True, kw_only=True)
class StoreListing:
    """The pictures below a URL, each with its output, found while they are asked for.

    S3 is listed page by page, in the order of its keys. Names are those that
    :class:`~vdsr_cli.batch.listing.FolderListing` gives. What lies below the URL of -o is left
    out.

    Attributes:
        folder: URL to look below.
        address: what an output's path stands for, such as a URL.
        out: URL that outputs go below, if they do.
        recursive: whether to look into prefixes below too, keeping their tree.
        own_outputs: how many earlier outputs have been left out so far.
    """

    folder: str
    naming: Naming
    address: Callable[[Path], str] = str
    out: str | None = None
    recursive: bool = False
    own_outputs: int = field(default=0, init=False)

    def __iter__(self) -> Iterator[Work]:
        """Yields every picture once.

        Raises:
            InputError: there is none, or the store cannot be listed.
            UsageError: outputs would go among the inputs.
        """
        if self.out is not None and self._goes_among(self.out):
            raise self._among_inputs()
        is_empty = True
        for name, siblings in _with_siblings(self._names()):
            is_empty = False
            if self.out is not None and joined(self.folder, name).startswith(joined(self.out, "")):
                self.own_outputs += 1
                continue
            yield self._work(name, siblings)
        if is_empty:
            raise InputError(
                f"{self.folder}: no pictures here",
                hint=None if self.recursive else "-r looks below it too",
            )

    def picture(self) -> Work | None:
        """The work of a URL that is of one picture, by its name; None where it is of a folder.

        Raises:
            UsageError: its output would replace it.
        """
        name = posixpath.basename(self.folder)
        if not is_picture_name(name):
            return None
        source = _source(Path(name))
        work = work_on(source, output_path(source, self.naming), self.address)
        if work.output == self.folder:
            raise self._among_inputs()
        return replace(work, input=self.folder)

    def _among_inputs(self) -> UsageError:
        return UsageError(
            f"-o {self.out} is the input, or above it", hint="give outputs a place of their own"
        )

    def _goes_among(self, out: str) -> bool:
        """Whether an output may have the name of an input: above them, where it has no mark."""
        is_above = joined(self.folder, "").startswith(joined(out, ""))
        return is_above and (self.naming.mark == "" or joined(self.folder, "") == joined(out, ""))

    def _work(self, name: str, siblings: set[str]) -> Work:
        above, base = posixpath.split(name)

        def has(other: str) -> bool:
            full = posixpath.join(above, other)
            if PurePosixPath(other).stem == PurePosixPath(base).stem:
                return full in siblings
            return exists(joined(self.folder, full))

        # What is empty between the slashes of a key has no name of its own.
        path = Path(*(part or "%" for part in name.split("/")))
        source = _source(path, root=Path())
        output = planned_output(source, self.naming, has)
        return replace(work_on(source, output, self.address), input=joined(self.folder, name))

    def _names(self) -> Iterator[str]:
        """The pictures' names below the folder, sorted."""
        with failing_as(InputError, f"{self.folder}: cannot be listed"):
            files, place = open_store(self.folder)
            start = f"{place.rstrip('/')}/"
            if protocol_of(self.folder) in S3:
                keys = _s3_keys(files, start, recursive=self.recursive)
            else:
                keys = iter(sorted(files.find(place, maxdepth=None if self.recursive else 1)))
            for key in keys:
                name = key.removeprefix(start)
                is_hidden = any(part.startswith(".") for part in name.split("/"))
                if is_picture_name(posixpath.basename(name)) and not is_hidden:
                    yield name


def _source(path: Path, root: Path | None = None) -> Source:
    own = path.suffix if path.suffix.lower() in OUTPUT_SUFFIXES else None
    return Source(path=path, root=root, own_suffix=own)


def _s3_keys(files: Any, start: str, *, recursive: bool) -> Iterator[str]:
    """The keys below ``bucket/prefix/``, a page of a thousand at a time."""
    bucket, _, prefix = start.partition("/")
    query = {"Bucket": bucket, "Prefix": prefix, **({} if recursive else {"Delimiter": "/"})}
    while True:
        page = files.call_s3("list_objects_v2", **query)
        yield from (f"{bucket}/{entry['Key']}" for entry in page.get("Contents", ()))
        if not page.get("IsTruncated"):
            return
        query["ContinuationToken"] = page["NextContinuationToken"]


def _with_siblings(names: Iterable[str]) -> Iterator[tuple[str, set[str]]]:
    """Yields each of the sorted names with all that share its stem: pure.

    Names that begin alike are neighbours, so a stem's are complete once a name comes that does
    not begin with it and a dot; few wait at a time.
    """
    waiting: list[tuple[str, str]] = []
    for name in chain(names, [""]):
        done = [pair for pair in waiting if not name.startswith(pair[0])]
        waiting = [pair for pair in waiting if name.startswith(pair[0])]
        for start, finished in done:
            yield finished, {other for same, other in done if same == start}
        waiting.append((name.removesuffix(PurePosixPath(name).suffix) + ".", name))
