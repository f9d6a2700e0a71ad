"""Pictures that are none or of rare kinds, wishes that cannot be granted, files out of reach: the
exit code of each, and that nothing unfinished is left."""

import io
import os
import shutil
import zlib
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from runner import SkippedError, Trial, fault

UNPRIVILEGED = "-dac_override,-dac_read_search"
"""Capabilities that root gives up to be refused like anyone else."""


def photo(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A smooth picture of random colours."""
    rough = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def encoded(image: Image.Image, format: str = "PNG", **options: Any) -> bytes:
    """The bytes of a file."""
    stream = io.BytesIO()
    image.save(stream, format, **options)
    return stream.getvalue()


def first_half(content: bytes) -> bytes:
    """A file whose end is missing."""
    return content[: len(content) // 2]


def bomb() -> bytes:
    """A PNG whose header claims 60000x60000."""
    content = bytearray(encoded(photo()))
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    return bytes(content)


def film() -> bytes:
    """An animation of three frames."""
    frames = [photo().rotate(angle) for angle in (90, 180)]
    return encoded(photo(), "GIF", save_all=True, append_images=frames)


def run(trial: Trial, *words: object, code: int, what: str = "", **options: Any) -> None:
    """Upscales, and notes another exit code than the one it should have, and what is left."""
    ended = trial.vdsr("upscale", "-m", trial.model, *words, **options)
    what = what or " ".join(map(str, words))
    trial.expect(ended.code == code, f"{what}: exit code {ended.code}, not {code}: {ended.err}")
    left = [p.name for p in trial.folder.rglob("*") if p.name.startswith(".") or ".part" in p.name]
    trial.expect(not left, f"{what}: left {left}")


@fault("files that are no pictures")
def no_pictures(trial: Trial) -> None:
    for name, content in {
        "empty.png": b"",
        "cut.png": first_half(encoded(photo(200, 200))),
        "cut.jpg": first_half(encoded(photo(200, 200), "JPEG")),
        "notes.png": b"I am a text.\n" * 50,
        "bomb.png": bomb(),
    }.items():
        (trial.folder / name).write_bytes(content)
        run(trial, name, code=3)


@fault("pictures of rare kinds")
def rare_pictures(trial: Trial) -> None:
    deep = Image.fromarray(np.linspace(0, 65535, 24 * 16, dtype=np.uint16).reshape(16, 24))
    # Pillow makes no CMYK profile; an RGB one in a CMYK file is the nastier case.
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    for name, content in {
        "pixel.png": encoded(photo(1, 1)),
        "line.png": encoded(photo(1, 5000)),
        "deep.png": encoded(deep),
        "palette.png": encoded(photo().quantize(16), transparency=3),
        "print.jpg": encoded(photo(mode="CMYK"), "JPEG", icc_profile=srgb),
        "odd.png": encoded(photo(), icc_profile=b"no profile at all"),
        "film.gif": film(),
        os.fsdecode(b"two\nlines \xff.png"): encoded(photo()),
    }.items():
        try:
            (trial.folder / name).write_bytes(content)
        except OSError:  # a disk that takes only UTF-8 names
            continue
        run(trial, name, code=0, what=ascii(name))


@fault("wishes that cannot be granted")
def wishes(trial: Trial) -> None:
    trial.picture("photo.png")
    trial.picture("b.png")
    (trial.folder / "album").mkdir()
    (trial.folder / "file").write_text("a file")
    for code, words in (
        (3, ["nothing.png"]),
        (3, ["album"]),
        (3, ["*.jpg"]),
        (3, ["n" * 300 + ".png"]),
        (2, ["photo.png", "b.png", "-o", "out.png"]),
        (2, ["photo.png", "-o", "photo.psd"]),
        (2, ["photo.png", "-o", "-", "--json"]),
        (6, ["photo.png", "-o", "file/photo.png"]),
        (4, ["photo.png", "--model", "vdvae-sr-x5"]),
        (4, ["photo.png", "--model", "./photo.png"]),
        (2, ["photo.png", "--temperature", "nan"]),
        (2, ["photo.png", "--temperature", "-1"]),
        (2, ["photo.png", "--scale", "100"]),
        (2, ["photo.png", "--scale", "big"]),
        (2, ["photo.png", "--tile", "63"]),
        (2, ["photo.png", "--tile", "64", "--overlap", "64"]),
        (2, ["photo.png", "--batch-size", "0"]),
        (5, ["photo.png", "--device", "cuda:99"]),
    ):
        run(trial, *words, code=code)


@fault("one bad picture among three")
def one_of_three(trial: Trial) -> None:
    trial.picture("a.png")
    trial.picture("c.png")
    (trial.folder / "b.png").write_bytes(b"junk")
    run(trial, "a.png", "b.png", "c.png", code=3)
    made = sorted(path.name for path in trial.folder.glob("*_x4.png"))
    trial.expect(made == ["a_x4.png", "c_x4.png"], f"made {made}")


@fault("files and folders without permission")
def no_permission(trial: Trial) -> None:
    for code, path, words in (
        (3, "secret.png", ["secret.png"]),
        (3, "locked", ["locked/photo.png"]),
        (6, "read-only", ["photo.png", "-o", "read-only/out.png"]),
    ):
        trial.picture("secret.png")
        trial.picture("photo.png")
        trial.picture("locked/photo.png")
        (trial.folder / "read-only").mkdir(exist_ok=True)
        (trial.folder / path).chmod(0o500 if path == "read-only" else 0)
        try:
            run(trial, *words, code=code, before=as_anyone())
        finally:
            (trial.folder / path).chmod(0o700)


def as_anyone() -> list[str]:
    """A command that makes root subject to permissions; nothing for anyone else."""
    if os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise SkippedError("root may do everything, and there is no setpriv")
    return ["setpriv", "--bounding-set", UNPRIVILEGED, "--inh-caps", UNPRIVILEGED]
