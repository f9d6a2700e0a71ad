"""Files of the Hugging Face hub, fetched by huggingface_hub and kept in its cache.

HF_HOME, HF_HUB_CACHE, HF_ENDPOINT, HF_TOKEN, HF_HUB_OFFLINE and HF_HUB_DOWNLOAD_TIMEOUT mean what
they mean to every program that uses the hub; it reads them when it is first imported, which
happens here, when a file of the hub is first asked for.
"""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from vdsr_cli.errors import WeightsError
from vdsr_cli.weights.cache import cache_errors
from vdsr_cli.weights.fetch import Progress
from vdsr_cli.weights.sources import Hub, is_sha256

if TYPE_CHECKING:
    from tqdm import tqdm

PAUSES_S = (0.5, 1.0)


def find_cached(source: Hub) -> Path | None:
    """The file in the hub's cache, or None. Makes no request."""
    from huggingface_hub import try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError

    try:
        found = try_to_load_from_cache(source.repo_id, source.filename, revision=source.revision)
    except HFValidationError as error:
        raise _explain(source, error) from error
    return Path(found) if isinstance(found, str) else None


def download(source: Hub, *, offline: bool, progress: Progress | None = None) -> Path:
    """Return the file's path in the hub's cache, downloading it if need be.

    A pinned file that is cached costs no request. The bytes are not verified here.
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
    return _fetch(source, progress)


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


def _fetch(source: Hub, progress: Progress | None) -> Path:
    """Have huggingface_hub bring the file; again after a pause where the hub is only busy."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError

    # The base class of the errors of the HTTP client, httpx or httpx2 by the hub's version.
    client_error: type[Exception] = HfHubHTTPError.__bases__[0]
    bar = _reporting(progress)
    for pause_s in (*PAUSES_S, None):
        try:
            path = hf_hub_download(
                source.repo_id, source.filename, revision=source.revision, tqdm_class=bar
            )
            return Path(path)
        except (OSError, ValueError, RuntimeError, client_error) as error:  # the third of hf_xet
            is_busy = isinstance(error, HfHubHTTPError) and error.response.status_code >= 500
            if pause_s is None or not is_busy:
                raise _explain(source, error) from error
            time.sleep(pause_s)
    raise AssertionError("the last attempt returns or raises")


def _reporting(progress: Progress | None) -> "type[tqdm[NoReturn]]":
    """A bar that draws nothing and tells ``progress`` of the bytes that arrive."""
    from tqdm import tqdm

    class Reporting(tqdm):  # type: ignore[misc]  # it has no types
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **{**options, "disable": True})

        def update(self, n: float | None = 1) -> None:
            self.n += n
            if progress is not None:
                progress(self.n, self.total)

    return Reporting


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
        f"{source} cannot be fetched from {endpoint}: {_first_line(error.__cause__ or error)}",
        hint="check the connection and HF_ENDPOINT, then run the command again",
    )


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
