"""The cache: downloads under way, files of the web, and conversions.

    $VDSR_HOME, or $XDG_CACHE_HOME/vdsr, or ~/.cache/vdsr
    └── weights
        ├── NAME-KEY.safetensors         whole and verified
        ├── NAME-KEY.json                receipt: where it came from, what it hashed to
        ├── NAME-KEY.part, .part.json    an interrupted download, to be resumed
        └── NAME-KEY.lock                held by the process that downloads

KEY is drawn from the source's address. Files of the hub are kept in the hub's own cache, $HF_HOME;
only their conversions are here.
Where no hash was ever published, the receipt is the pin: the hash of the first download, which
every later download must have. Deleting the receipt is to trust anew.
"""

import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

from vdsr_cli.errors import OutputError, WeightsError
from vdsr_cli.files import remove_leftovers, write_text_atomic
from vdsr_cli.weights.sources import Hub, Source, Web, is_sha256

LOCK_WAIT_S = 3600.0
_HOME_HINT = "set VDSR_HOME to a folder for weights"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EFBIG, getattr(errno, "EDQUOT", errno.ENOSPC)})


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt:
    """The facts of one cached file.

    Args:
        source: the address that the source file came from.
        source_sha256: hash of the source file: the pin, where none was published.
        sha256: hash of the cached file; another one where the source was converted.
    """

    source: str
    source_sha256: str
    sha256: str

    def __post_init__(self) -> None:
        if not (is_sha256(self.source_sha256) and is_sha256(self.sha256)):
            raise ValueError("a receipt needs two hashes")


@dataclass(frozen=True, slots=True, kw_only=True)
class CacheEntry:
    """The place of one source in the cache; nothing need be there yet."""

    source: str
    folder: Path
    stem: str

    @property
    def file(self) -> Path:
        """The whole, verified file."""
        return self.folder / f"{self.stem}.safetensors"

    @property
    def part(self) -> Path:
        """The download under way."""
        return self.folder / f"{self.stem}.part"

    @property
    def notes(self) -> Path:
        """Notes on the download under way."""
        return self.folder / f"{self.stem}.part.json"

    @property
    def receipt_path(self) -> Path:
        """The receipt of the file."""
        return self.folder / f"{self.stem}.json"

    def receipt(self) -> Receipt | None:
        """Read the receipt; None where there is none, or none that makes sense."""
        try:
            receipt = Receipt(**json.loads(self.receipt_path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError, AttributeError, RecursionError):
            return None
        return receipt if receipt.source == self.source else None

    def write_receipt(self, *, source_sha256: str) -> None:
        """Note what the file hashes to, and what its source did. Raises OSError."""
        receipt = Receipt(
            source=self.source, source_sha256=source_sha256, sha256=hash_file(self.file)
        )
        write_text_atomic(self.receipt_path, json.dumps(asdict(receipt), indent=2) + "\n")

    def find(self, source_sha256: str | None) -> Path | None:
        """The file, unverified; None where it is not here or was made from another source file.

        ``source_sha256`` is the hash that the source file must have had; None takes any.
        """
        receipt = self.receipt()
        if receipt is None or not self.file.is_file():
            return None
        return self.file if source_sha256 in {None, receipt.source_sha256} else None

    def is_intact(self) -> bool:
        """Whether the file hashes to what its receipt says. Raises OSError."""
        receipt = self.receipt()
        if receipt is None or not self.file.is_file():
            return False
        return hash_file(self.file) == receipt.sha256

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Hold the entry against other processes; wait for one that downloads. Raises OSError."""
        from filelock import FileLock, Timeout

        self.folder.mkdir(parents=True, exist_ok=True)
        lock = self.folder / f"{self.stem}.lock"
        try:
            with FileLock(lock, timeout=LOCK_WAIT_S):
                for path in (self.file, self.receipt_path, self.notes):
                    remove_leftovers(path)
                yield
        except Timeout as error:
            raise TimeoutError(f"another process has held {lock} for an hour") from error


def cache_home() -> Path:
    """The root of vdsr's own cache, as the environment has it now; raises WeightsError without a
    home folder."""
    if home := os.environ.get("VDSR_HOME"):
        return expanded(home, hint=_HOME_HINT)
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else expanded("~/.cache", hint=_HOME_HINT)) / "vdsr"


def expanded(path: str, *, hint: str | None = None) -> Path:
    """A path, its ``~`` the home folder; raises WeightsError where there is none."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise WeightsError(f"{path}: there is no such home folder", hint=hint) from error


def entry_for(source: Hub | Web) -> CacheEntry:
    """The place in the cache of what comes from ``source``."""
    return _entry(str(source), source.filename)


def entry_of_conversion(path: Path, sha256: str) -> CacheEntry:
    """The place in the cache of what a file on this disk, of that hash, is converted to."""
    return _entry(f"sha256:{sha256}", path.name)


def _entry(source: str, filename: str) -> CacheEntry:
    name = PurePosixPath(filename).stem
    safe = re.sub(r"[^A-Za-z0-9._-]", "_", name).strip(".")[:80] or "weights"
    key = hashlib.sha256(source.encode()).hexdigest()[:12]
    return CacheEntry(source=source, folder=cache_home() / "weights", stem=f"{safe}-{key}")


def hash_file(path: Path) -> str:
    """The sha256 of a file, in lower-case hexadecimal. Raises OSError."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def wrong_hash(source: Source, found: str, wanted: str | None) -> WeightsError:
    """The error for a file that hashes to something else than it should."""
    return WeightsError(
        f"{source} has sha256 {found}, expected {wanted}: refused and removed",
        hint="the file is not the published one: report it, do not use it",
    )


@contextlib.contextmanager
def cache_errors(path: Path, variable: str = "VDSR_HOME") -> Iterator[None]:
    """Turn a failure to read or write ``path`` in a cache into a WeightsError.

    ``variable`` is the one that moves that cache elsewhere.
    """
    try:
        yield
    except (OSError, OutputError) as error:
        cause = error if isinstance(error, OSError) else error.__cause__
        reason = getattr(cause, "strerror", None) or str(error)
        is_full = getattr(cause, "errno", None) in _NO_ROOM
        place = "that has it" if is_full else "that you can write to"
        raise WeightsError(
            f"cannot use the cache at {path}: {reason}",
            hint=f"{'free some space, or ' if is_full else ''}set {variable} to a folder {place}",
        ) from error
