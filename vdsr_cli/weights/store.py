"""From a model's name, a path or an address to a verified file on this disk."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from vdsr_cli.errors import WeightsError
from vdsr_cli.files import sync_file
from vdsr_cli.weights import fetch, hub
from vdsr_cli.weights.cache import (
    CacheEntry,
    cache_errors,
    cache_home,
    entry_for,
    entry_of_conversion,
    expanded,
    hash_file,
    wrong_hash,
)
from vdsr_cli.weights.fetch import Progress
from vdsr_cli.weights.files import read_header
from vdsr_cli.weights.partial import discard
from vdsr_cli.weights.pickles import convert
from vdsr_cli.weights.records import WeightsRecord, did_you_mean, load_records
from vdsr_cli.weights.sources import (
    Bundled,
    Hub,
    Source,
    Web,
    is_address,
    is_pickle,
    mirrored,
    parse_source,
)

State = Literal["ok", "absent", "damaged"]
REINSTALL = "reinstall: pip install --force-reinstall vdsr-cli"
"""The hint where bundled weights are not as they were."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ResolvedWeights:
    """A weights file on this disk, and its row of ``weights.toml`` if it has one."""

    path: Path
    record: WeightsRecord | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Request:
    """A resolved request: the arguments of :func:`resolve`, settled."""

    source: Source
    record: WeightsRecord | None
    sha256: str | None
    is_offline: bool
    progress: Progress | None

    @property
    def config_name(self) -> str | None:
        """The published configuration of a pickle; only a record can name one."""
        return self.record.config if self.record else None


def resolve(
    name_or_path: str, *, offline: bool | None = None, progress: Progress | None = None
) -> ResolvedWeights:
    """Return a weights file on this disk, downloaded and converted if need be, always verified.

    Args:
        name_or_path: a model of ``weights.toml``, a path, ``hf://owner/repo[@revision]/file`` or
            ``https://host/file#sha256=...``. A model's name goes before a path of that name. A
            path may be that of a published pickle: what is returned is its conversion.
        offline: make no request; None is what HF_HUB_OFFLINE says.
        progress: called while bytes arrive.

    Raises WeightsError; nothing that failed a check stays in a cache.
    """
    records = load_records()
    record = records.get(name_or_path)
    is_offline = offline_by_environment() if offline is None else offline
    if record is None and not is_address(name_or_path):
        return ResolvedWeights(path=_local(name_or_path, records), record=None)
    source = record.location if record else parse_source(name_or_path)
    of_address = source.sha256 if isinstance(source, Web) else None
    request = _Request(
        source=source,
        record=record,
        sha256=record.sha256 if record else of_address,
        is_offline=is_offline,
        progress=progress,
    )
    return ResolvedWeights(path=_obtain(request), record=record)


def offline_by_environment() -> bool:
    """Whether HF_HUB_OFFLINE forbids requests; it is obeyed for https downloads too."""
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}


def bundled_path(source: Bundled) -> Path:
    """Where a bundled file is installed."""
    return Path(__file__).resolve().parents[1] / "checkpoints" / source.filename


def locate(record: WeightsRecord) -> Path | None:
    """Where a model's file is on this disk, unverified; None where it is not. No request."""
    source = record.location
    if isinstance(source, Bundled):
        path = bundled_path(source)
        return path if path.is_file() else None
    if isinstance(source, Hub) and not is_in_own_cache(source):
        return hub.find_cached(source)
    try:
        return entry_for(source).find(record.sha256)
    except WeightsError:  # without a home folder
        return None


def check(record: WeightsRecord) -> State:
    """Hash a model's file on this disk and say how it is doing. No request, no change."""
    path = locate(record)
    if path is None:
        return "absent"
    source = record.location
    with cache_errors(path):
        if isinstance(source, Bundled) or not is_in_own_cache(source):
            is_good = record.sha256 is None or hash_file(path) == record.sha256
        else:
            is_good = entry_for(source).is_intact()
    return "ok" if is_good else "damaged"


def is_in_own_cache(source: Hub | Web) -> bool:
    """Whether files of ``source`` are kept in vdsr's cache rather than in the hub's."""
    return isinstance(source, Web) or is_pickle(source.filename)


def _local(text: str, records: Mapping[str, WeightsRecord]) -> Path:
    path = expanded(text)
    if not path.is_file():
        raise WeightsError(
            f"there is no model and no file named {text!r}", hint=did_you_mean(text, records)
        )
    if is_pickle(text):
        return _converted(path)
    read_header(path)
    return path


def _converted(path: Path) -> Path:
    """The conversion of a published pickle on this disk, kept in the cache by its hash."""
    try:
        sha256 = hash_file(path)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror}") from error
    entry = entry_of_conversion(path, sha256)
    with cache_errors(entry.folder):
        if (cached := _intact(entry, sha256)) is not None:
            return cached
        with entry.locked():
            convert(path, entry.file)
            entry.write_receipt(source_sha256=sha256)
    return entry.file


def _refuse_pickle(name: str) -> None:
    if is_pickle(name):
        raise WeightsError(
            f"{name} is a pickle, which could run code",
            hint="fetch and convert it once: vdsr weights convert FILE -o OUT.safetensors",
        )


def _obtain(request: _Request) -> Path:
    source = request.source
    if isinstance(source, Bundled):
        return _obtain_bundled(source, request.sha256)
    if request.config_name is None:
        _refuse_pickle(source.filename)
    if isinstance(source, Hub):
        return _obtain_from_hub(source, request)
    return _obtain_from_web(source, request)


def _obtain_bundled(source: Bundled, sha256: str | None) -> Path:
    path = bundled_path(source)
    problem = None if path.is_file() else "missing from this installation"
    if problem is None and sha256 is not None and hash_file(path) != sha256:
        problem = "damaged"
    if problem is not None:
        raise WeightsError(
            f"the bundled weights {source.filename} are {problem}",
            hint=REINSTALL,
        )
    return path


def _obtain_from_hub(source: Hub, request: _Request) -> Path:
    was_cached = hub.find_cached(source) is not None
    path = hub.download(source, offline=request.is_offline, progress=request.progress)
    wanted = request.sha256 or hub.promised_sha256(path)
    with cache_errors(path, "HF_HOME"):
        found = hash_file(path)
    if wanted not in {None, found}:
        hub.discard(path)
        if was_cached and not request.is_offline:
            return _obtain_from_hub(source, request)  # damaged on this disk: get it once more
        raise wrong_hash(source, found, wanted)
    with cache_errors(cache_home()):
        try:
            return _usable(path, found, source, request)
        except WeightsError as error:
            if was_cached:
                raise  # what another program put there for itself is left alone
            hub.discard(path)
            raise _refused(source, error) from error


def _usable(path: Path, sha256: str, source: Hub, request: _Request) -> Path:
    """The file itself where it is safetensors of ours, else its conversion in our cache.

    Raises WeightsError where the file is at fault, OSError or OutputError where the cache is.
    """
    if not is_in_own_cache(source):
        read_header(path)
        return path
    entry = entry_for(source)
    if (cached := _intact(entry, sha256)) is not None:
        return cached
    with entry.locked():
        _convert_into(entry, path, request)
        entry.write_receipt(source_sha256=sha256)
    return entry.file


def _obtain_from_web(source: Web, request: _Request) -> Path:
    entry = entry_for(source)
    if request.sha256 is None and not (request.record and request.record.trust_on_first_use):
        raise WeightsError(
            f"{source} comes without a hash to verify it by",
            hint=f"give it: {source}#sha256=<64 hexadecimal digits>",
        )
    with cache_errors(entry.folder):
        if (cached := _intact(entry, request.sha256)) is not None:
            return cached
        if request.is_offline:
            raise WeightsError(
                f"{source} is not in the cache and may not be fetched offline",
                hint="run `vdsr weights download` once with a connection, or copy the cache",
            )
        with entry.locked():
            cached = _intact(entry, request.sha256)
            return cached or _download_into(entry, source, request)


def _intact(entry: CacheEntry, sha256: str | None) -> Path | None:
    """The entry's file, if it is here and verifies."""
    file = entry.find(sha256)
    return file if file is not None and entry.is_intact() else None


def _download_into(entry: CacheEntry, source: Web, request: _Request) -> Path:
    """Download, verify, convert where needed; a file that fails leaves what was there before."""
    size_bytes = request.record.bytes if request.record else None
    url = mirrored(source.url)
    download = fetch.Download(url=url, size_bytes=size_bytes, allow_http=url != source.url)
    fetched = fetch.fetch(download, entry.part, progress=request.progress)
    receipt = entry.receipt()
    wanted = request.sha256 or (receipt.source_sha256 if receipt else None)
    if wanted not in {None, fetched.sha256}:
        discard(entry.part)
        raise wrong_hash(source, fetched.sha256, wanted)
    try:
        _place(entry, source, request)
    except WeightsError as error:
        discard(entry.part)
        raise _refused(source, error) from error
    entry.write_receipt(source_sha256=fetched.sha256)
    discard(entry.part)
    return entry.file


def _place(entry: CacheEntry, source: Web, request: _Request) -> None:
    """Turn the complete download into the entry's file. Raises OSError and OutputError too."""
    if is_pickle(source.filename):
        _convert_into(entry, entry.part, request)
    else:
        read_header(entry.part)
        sync_file(entry.part)
        entry.part.replace(entry.file)


def _convert_into(entry: CacheEntry, pickle_path: Path, request: _Request) -> None:
    assert request.record is not None and request.config_name is not None
    architecture = request.record.architecture
    convert(pickle_path, entry.file, request.config_name, architecture=architecture)


def _refused(source: Source, error: WeightsError) -> WeightsError:
    return WeightsError(
        f"{source} is refused and removed: {error}",
        hint="the download was whole, so another try will not help: report it, do not use it",
    )
