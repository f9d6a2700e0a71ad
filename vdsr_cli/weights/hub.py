"""Files of the Hugging Face hub, kept in the hub's own cache.

    HEAD /owner/repo/resolve/revision/file ──► commit, sha256, size
      ──► fetch, with Range, into a .part file ──► verified ──► blob in the hub's cache
      ──► hf_hub_download finds the blob and links it into its snapshot

huggingface_hub 2 starts an interrupted download from nothing, and keeps whatever arrives; so the
bytes of large files come through :mod:`vdsr_cli.weights.fetch`, which resumes, and enter the cache
once they have the right hash. Small files that the hub keeps in git are left to huggingface_hub.

HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HUB_DOWNLOAD_TIMEOUT mean what
they mean to every program that uses the hub; it reads them when it is first imported, which
happens here, when a file of the hub is first asked for.
"""

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from vdsr_cli.errors import WeightsError
from vdsr_cli.files import atomic_path
from vdsr_cli.weights import fetch
from vdsr_cli.weights.cache import cache_errors, entry_for, wrong_hash
from vdsr_cli.weights.partial import discard as discard_part
from vdsr_cli.weights.sources import Hub, is_sha256

if TYPE_CHECKING:
    from huggingface_hub import HfFileMetadata

TRIES = 3
BACKOFF_S = 0.5

T = TypeVar("T")


def find_cached(source: Hub) -> Path | None:
    """The file in the hub's cache, or None. Makes no request."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.repo_id, source.filename, revision=source.revision)
    except HFValidationError as error:
        raise _explain(source, error) from error
    return Path(found) if isinstance(found, str) else None


def download(
    source: Hub, *, offline: bool, sha256: str | None, progress: fetch.Progress | None = None
) -> Path:
    """Return the file's path in the hub's cache, downloading it if need be.

    A pinned file that is cached costs no request. Where the hub announces another hash than
    ``sha256``, nothing is downloaded. The bytes themselves are not verified here.
    Raises WeightsError.
    """
    cached = find_cached(source)
    if cached is not None and (offline or source.is_pinned):
        return cached
    if offline:
        raise WeightsError(
            f"{source} is not in the hub's cache and may not be fetched offline",
            hint="run `vdsr weights download` once with a connection, or copy the cache ($HF_HOME)",
        )
    return _retried(source, lambda: _download(source, sha256, progress))


def promised_sha256(path: Path) -> str | None:
    """The hash that the hub announced for a file of its cache, None for files kept in git.

    The cache names the bytes of a large file by their sha256.
    """
    blob = path.readlink().name if path.is_symlink() else ""
    return blob if is_sha256(blob) else None


def discard(path: Path) -> None:
    """Remove a file and its bytes from the hub's cache, so that nothing finds it there again."""
    from huggingface_hub.constants import HF_HUB_CACHE

    root = Path(HF_HUB_CACHE).resolve()
    with cache_errors(path, "HF_HOME"):
        while path.parent.resolve().is_relative_to(root):
            target = path.parent / path.readlink() if path.is_symlink() else None
            path.unlink(missing_ok=True)
            if target is None:
                return
            path = target


def _download(source: Hub, sha256: str | None, progress: fetch.Progress | None) -> Path:
    """Ask what the file is, then get it. Raises what huggingface_hub raises."""
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.constants import HF_HUB_ETAG_TIMEOUT

    url = hf_hub_url(source.repo_id, source.filename, revision=source.revision)
    facts = get_hf_file_metadata(url, timeout=HF_HUB_ETAG_TIMEOUT)
    if is_sha256(facts.etag or ""):
        if sha256 not in {None, facts.etag}:
            raise wrong_hash(source, str(facts.etag), sha256)
        _bring_blob(source, url, facts, progress)
    path = hf_hub_download(source.repo_id, source.filename, revision=source.revision)
    return Path(path)


def _bring_blob(
    source: Hub, url: str, facts: "HfFileMetadata", progress: fetch.Progress | None
) -> None:
    """Put a file's bytes where the hub's cache keeps them: blobs/SHA256."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from huggingface_hub.file_download import repo_folder_name
    from huggingface_hub.utils import build_hf_headers  # type: ignore[attr-defined]  # it is public

    folder = repo_folder_name(repo_id=source.repo_id, repo_type="model")
    blob = Path(HF_HUB_CACHE) / folder / "blobs" / str(facts.etag)
    what = fetch.Download(
        url=url,
        size_bytes=facts.size,
        authorization=build_hf_headers().get("authorization"),
        allow_http=url.startswith("http://"),  # HF_ENDPOINT says so
    )
    entry = entry_for(source)
    with cache_errors(entry.folder), entry.locked():
        if blob.exists():
            return
        fetched = fetch.fetch(what, entry.part, progress=progress)
        if fetched.sha256 != facts.etag:
            discard_part(entry.part)
            raise wrong_hash(source, fetched.sha256, facts.etag)
        with cache_errors(blob, "HF_HOME"):
            blob.parent.mkdir(parents=True, exist_ok=True)
            with atomic_path(blob) as temporary:
                shutil.move(entry.part, temporary)
        discard_part(entry.part)


def _retried(source: Hub, action: Callable[[], T]) -> T:
    """Run ``action``, again after a pause where the hub is only out of breath."""
    from huggingface_hub.errors import HfHubHTTPError

    # The base class of the HTTP client's errors: requests, httpx or httpx2, by the hub's version.
    bases: tuple[type[Exception], ...] = HfHubHTTPError.__mro__[:-2]
    client_error = next(base for base in bases if base.__name__ == "HTTPError")
    for attempt in range(TRIES):
        try:
            return action()
        except (OSError, ValueError, client_error) as error:
            if not _is_transient(error) or attempt == TRIES - 1:
                raise _explain(source, error) from error
            time.sleep(BACKOFF_S * 2**attempt)
    raise AssertionError("the last attempt returns or raises")


def _is_transient(error: Exception) -> bool:
    """Whether the hub was busy, or had closed a connection that was kept open."""
    status = getattr(getattr(error, "response", None), "status_code", 0)
    is_stale = type(error).__name__ == "RemoteProtocolError"
    return is_stale or status == 429 or status >= 500


def _explain(source: Hub, error: Exception) -> WeightsError:
    """The one line, and its hint, for what huggingface_hub raised."""
    from huggingface_hub import errors
    from huggingface_hub.constants import ENDPOINT

    if isinstance(error, errors.GatedRepoError):
        return WeightsError(
            f"{source.repo_id} is gated",
            hint="accept its terms on the hub, then set HF_TOKEN to a token of yours",
        )
    if isinstance(error, errors.RepositoryNotFoundError):
        return WeightsError(
            f"{ENDPOINT} has no repository {source.repo_id}, or it is private",
            hint="check the spelling; for a private one, set HF_TOKEN",
        )
    if isinstance(error, errors.RevisionNotFoundError):
        return WeightsError(f"{source.repo_id} has no revision {source.revision}")
    if isinstance(error, errors.RemoteEntryNotFoundError):
        return WeightsError(f"{source.repo_id} has no file {source.filename} at that revision")
    if isinstance(error, errors.OfflineModeIsEnabled):
        return WeightsError(
            f"{source} cannot be fetched: HF_HUB_OFFLINE is set",
            hint="unset HF_HUB_OFFLINE, or run `vdsr weights download` where there is a network",
        )
    if isinstance(error, errors.HfHubHTTPError):
        return WeightsError(f"{ENDPOINT} answered {error.response.status_code} for {source}")
    if isinstance(error, errors.HFValidationError):
        return WeightsError(f"{source} is not a file on the hub: {_first_line(error)}")
    return _explain_disk_or_network(source, error, ENDPOINT)


def _explain_disk_or_network(source: Hub, error: Exception, endpoint: str) -> WeightsError:
    if isinstance(error, OSError) and error.errno is not None:
        return WeightsError(
            f"cannot keep {source} in the hub's cache: {error.strerror}",
            hint="free some space or set HF_HOME to a folder that you can write to",
        )
    return WeightsError(
        f"{endpoint} cannot be reached for {source}: {_first_line(error)}",
        hint="check the connection and HF_ENDPOINT, then run the command again",
    )


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
