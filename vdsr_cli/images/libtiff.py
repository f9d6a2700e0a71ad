"""Pillow's libtiff, which prints what it finds wrong with a file to standard error by itself."""

import ctypes
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import _imaging

_HANDLER = ctypes.CFUNCTYPE(None, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p)


@contextmanager
def libtiff_complaints() -> Iterator[list[str]]:
    """Has libtiff report here instead of printing: yields the names of its functions that find
    errors, as they come.

    Its handlers are the whole process's, so one thread at a time may have them. Where they cannot
    be reached, as in a Pillow that hides its libraries, nothing changes and nothing is reported.
    """
    complaints: list[str] = []

    def complain(function: bytes | None, template: bytes | None, values: int | None) -> None:
        complaints.append((function or b"libtiff").decode("ascii", "replace"))

    try:
        library = ctypes.CDLL(_imaging.__file__)
        setters = (library.TIFFSetErrorHandler, library.TIFFSetWarningHandler)
    except (AttributeError, OSError, TypeError):
        yield complaints
        return
    on_error = _HANDLER(complain)
    for setter in setters:
        setter.restype, setter.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
    before = [
        setter(handler)
        for setter, handler in zip(
            setters, (ctypes.cast(on_error, ctypes.c_void_p), None), strict=True
        )
    ]
    try:
        yield complaints
    finally:
        for setter, handler in zip(setters, before, strict=True):
            setter(handler)
