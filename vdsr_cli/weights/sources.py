"""Where weights come from: beside the code, on the Hugging Face hub, or at a web address."""

import os
import re
from dataclasses import dataclass
from pathlib import PurePosixPath
from urllib.parse import unquote, urlsplit

from vdsr_cli.errors import WeightsError

PICKLE_SUFFIXES = frozenset({".th", ".pt", ".pth", ".ckpt", ".bin", ".pkl"})
PUBLISHER = "https://openaipublic.blob.core.windows.net"
"""Where OpenAI's files are published; VDSR_OPENAI_ENDPOINT names a mirror of it."""
LOOPBACK_HOSTS = frozenset({"127.0.0.1", "::1", "localhost"})

_HUB = re.compile(
    r"hf://(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w.%-]+))?/(?P<filename>[^?#@\\]+)",
    re.ASCII,
)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Bundled:
    """A file that is installed with the package, in ``vdsr_cli/checkpoints``."""

    filename: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Hub:
    """A file of a model repository on the hub; ``revision`` is a commit, a tag or a branch."""

    repo_id: str
    filename: str
    revision: str | None = None

    @property
    def is_pinned(self) -> bool:
        """Whether the revision is a full commit, which can never mean other bytes later."""
        return self.revision is not None and _COMMIT.fullmatch(self.revision) is not None

    def __str__(self) -> str:
        revision = f"@{self.revision}" if self.revision else ""
        return f"hf://{self.repo_id}{revision}/{self.filename}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Web:
    """A file at an https address; ``sha256`` is the one named behind ``#sha256=``, if any."""

    url: str
    sha256: str | None = None

    @property
    def filename(self) -> str:
        """The last part of the address."""
        return PurePosixPath(unquote(urlsplit(self.url).path)).name

    def __str__(self) -> str:
        return self.url


Source = Bundled | Hub | Web


def is_address(text: str) -> bool:
    """Whether ``text`` names a place on the network rather than a model or a file."""
    return text.startswith(("hf://", "https://", "http://"))


def is_sha256(text: str) -> bool:
    """Whether ``text`` is 64 lower-case hexadecimal digits."""
    return _SHA256.fullmatch(text) is not None


def is_pickle(filename: str) -> bool:
    """Whether the file's name is one that ``torch.save`` pickles go by."""
    return PurePosixPath(filename).suffix.lower() in PICKLE_SUFFIXES


def parse_source(text: str) -> Source:
    """Read ``hf://owner/repo[@revision]/file``, ``https://...[#sha256=...]`` or a bare filename.

    Raises WeightsError for anything else, plain http included: only an address on this machine
    (127.0.0.1, ::1, localhost) may do without https, for tests.
    """
    if text.startswith("hf://"):
        return _parse_hub(text)
    if is_address(text):
        return _parse_web(text)
    if not text or "/" in text or "\\" in text or text in {".", ".."}:
        raise WeightsError(f"{text!r} is not the name of a bundled file")
    return Bundled(filename=text)


def check_url(url: str, *, allow_http: bool = False) -> None:
    """Refuse an address that is not https and not on this machine. Raises WeightsError.

    ``allow_http`` takes plain http elsewhere too.
    """
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
    except ValueError as error:
        raise WeightsError(f"{url!r} is not a web address: {error}") from error
    is_clean = url.isascii() and url.isprintable() and " " not in url
    if not (is_clean and host and parts.username is None and parts.password is None):
        raise WeightsError(f"{url!r} is not a web address of the form https://host/file")
    is_http_fine = parts.scheme == "http" and (allow_http or host in LOOPBACK_HOSTS)
    if parts.scheme != "https" and not is_http_fine:
        raise WeightsError(
            f"{url!r} is refused: weights are fetched over https only",
            hint="use the https address, or download the file yourself and give its path",
        )


def mirrored(url: str) -> str:
    """The address on the mirror that VDSR_OPENAI_ENDPOINT names, for a file of ``PUBLISHER``."""
    mirror = os.environ.get("VDSR_OPENAI_ENDPOINT", "").rstrip("/")
    path = url.removeprefix(PUBLISHER)
    return mirror + path if mirror and path.startswith("/") else url


def _parse_hub(text: str) -> Hub:
    match = _HUB.fullmatch(text)
    names = match["filename"].split("/") if match else []
    if match is None or any(name in {"", ".", ".."} for name in names):
        raise WeightsError(
            f"{text!r} is not a file on the hub",
            hint="the form is hf://owner/repo[@revision]/file.safetensors",
        )
    revision = unquote(match["revision"]) if match["revision"] else None
    return Hub(repo_id=match["repo"], filename=match["filename"], revision=revision)


def _parse_web(text: str) -> Web:
    url, _, fragment = text.partition("#")
    check_url(url)
    if not fragment:
        return Web(url=url)
    sha256 = fragment.removeprefix("sha256=").lower()
    if not fragment.startswith("sha256=") or not is_sha256(sha256):
        raise WeightsError(
            f"{text!r} ends in something that is not a hash",
            hint="the form is https://host/file.safetensors#sha256=<64 hexadecimal digits>",
        )
    return Web(url=url, sha256=sha256)
