"""Standard streams that are open, and fail in documented ways.

stdin   closed: reading it fails, and takes no other file for it
stdout  closed or full: OutputError; its reader has gone: the run ends quietly, as by SIGPIPE
stderr  closed or full: what cannot be said is left out
"""

import codecs
import errno
import os
import select
import sys
from io import BufferedReader, BufferedWriter, FileIO, TextIOWrapper
from typing import Any, Final, TextIO

from vdsr_cli.errors import OutputError

_READER_GONE: Final = 128 + 13
"""Exit code of a shell's command that SIGPIPE has ended."""


def open_streams() -> None:
    """Makes the standard streams of this process what the module says; those that a caller has
    put in their place are only told how to print file names."""
    codecs.register_error("vdsr", _bytes_or_escapes)
    if os.name == "posix":
        _reopen_closed()
        if sys.stdin is None:
            sys.stdin = TextIOWrapper(BufferedReader(FileIO(0, closefd=False)), encoding="utf-8")
        if sys.stdout is sys.__stdout__:
            sys.stdout = _text(_Stdout(1, "wb", closefd=False), sys.stdout)
        if sys.stderr is sys.__stderr__:
            sys.stderr = _text(_Stderr(2, "wb", closefd=False), sys.stderr, line_buffering=True)
            sys.stderr.reconfigure(errors="backslashreplace")
    if isinstance(sys.stdout, TextIOWrapper):
        sys.stdout.reconfigure(errors="vdsr")


def _reopen_closed() -> None:
    """Keeps the numbers of closed streams from files that are opened later, which would get what
    is meant for the streams: the null device holds them, opened for what is never done to it."""
    for descriptor, flags in ((0, os.O_WRONLY), (1, os.O_RDONLY), (2, os.O_RDONLY)):
        try:
            os.fstat(descriptor)
        except OSError:
            held = os.open(os.devnull, flags)
            if held != descriptor:
                os.dup2(held, descriptor)
                os.close(held)


def _text(raw: FileIO, before: TextIO | None, **options: Any) -> TextIOWrapper:
    """A text stream like the one before, which is missing where it was closed."""
    if not isinstance(before, TextIOWrapper):
        return TextIOWrapper(BufferedWriter(raw), encoding="utf-8", **options)
    settings = {
        "encoding": before.encoding,
        "line_buffering": before.line_buffering,
        "write_through": before.write_through,
    }
    return TextIOWrapper(BufferedWriter(raw), **{**settings, **options})


class _Stdout(FileIO):
    """Says once that it failed; what follows, what is still buffered too, is dropped."""

    _has_failed = False

    def write(self, data: Any) -> int:
        """As ``FileIO`` does; waits where that would answer that nothing can be written now."""
        while not self._has_failed:
            try:
                written = super().write(data)
            except OSError as error:
                self._has_failed = True
                if error.errno == errno.EPIPE:
                    raise SystemExit(_READER_GONE) from None
                reason = (error.strerror or str(error)).lower()
                raise OutputError(f"standard output: cannot be written: {reason}") from error
            if written is not None:
                return written
            select.select([], [self], [])
        return memoryview(data).nbytes


class _Stderr(FileIO):
    """Never fails."""

    def write(self, data: Any) -> int:
        """As ``FileIO`` does; what it fails to write counts as written."""
        try:
            return super().write(data) or memoryview(data).nbytes
        except OSError:
            return memoryview(data).nbytes


def _bytes_or_escapes(error: UnicodeError) -> tuple[str | bytes, int]:
    """File names come out as the bytes they are, also those that are no UTF-8; what else the
    stream's encoding lacks, as an escape."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    # Its attributes move on from call to call, its args do not.
    start = error.start
    one = UnicodeEncodeError(error.encoding, error.object, start, start + 1, error.reason)
    is_byte = "\udc80" <= error.object[start] <= "\udcff"
    return codecs.lookup_error("surrogateescape" if is_byte else "backslashreplace")(one)
