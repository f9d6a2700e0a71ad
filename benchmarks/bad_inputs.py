"""Gives `vdsr upscale` everything that can be wrong with an input and prints how it answered.

    python benchmarks/bad_inputs.py [--model NAME|PATH] [--only WORD]

Every case runs the real command in a folder of its own and is one row of a Markdown table: the exit
code, what was printed, and the files that were not there before. The script ends with 1 when a case
ended with another exit code than the one it should, showed a traceback, or left a partial file.
"""

import io
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from common import argument_parser
from PIL import Image, ImageCms

REPOSITORY = Path(__file__).resolve().parents[1]
CASES: "list[Case]" = []
UNPRIVILEGED = "-dac_override,-dac_read_search"
"""Capabilities that root gives up to be refused like anyone else."""


class SkippedError(Exception):
    """A case that cannot be made on this machine, and why."""


@dataclass(frozen=True)
class Case:
    """One bad input.

    ``make`` fills a folder and returns the arguments of ``vdsr upscale``; ``expected`` are the
    exit codes that are right.
    """

    name: str
    expected: tuple[int, ...]
    make: Callable[[Path], Sequence[str]]
    is_unprivileged: bool = False
    interrupt_after: str | None = None


@dataclass
class Answer:
    """How the command ended."""

    code: int
    message: str
    left: list[str] = field(default_factory=list)


def case(
    name: str,
    *expected: int,
    is_unprivileged: bool = False,
    interrupt_after: str | None = None,
) -> Callable[[Callable[[Path], Sequence[str]]], None]:
    """Enters a function into the table."""

    def enter(make: Callable[[Path], Sequence[str]]) -> None:
        CASES.append(Case(name, expected, make, is_unprivileged, interrupt_after))

    return enter


def photo(width: int = 24, height: int = 16, mode: str = "RGB") -> Image.Image:
    """A smooth picture of random colours."""
    rough = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    return Image.fromarray(rough).resize((width, height), Image.Resampling.BICUBIC).convert(mode)


def png_bytes(**size: int) -> bytes:
    """The same as a PNG file."""
    stream = io.BytesIO()
    photo(**size).save(stream, "PNG")
    return stream.getvalue()


# What is no picture


@case("empty file", 3)
def _empty(folder: Path) -> Sequence[str]:
    (folder / "empty.png").write_bytes(b"")
    return ["empty.png"]


@case("truncated PNG", 3)
def _truncated_png(folder: Path) -> Sequence[str]:
    content = png_bytes(width=200, height=200)
    (folder / "cut.png").write_bytes(content[: len(content) // 2])
    return ["cut.png"]


@case("truncated JPEG", 3)
def _truncated_jpeg(folder: Path) -> Sequence[str]:
    photo(200, 200).save(folder / "whole.jpg")
    content = (folder / "whole.jpg").read_bytes()
    (folder / "whole.jpg").unlink()
    (folder / "cut.jpg").write_bytes(content[: len(content) // 2])
    return ["cut.jpg"]


@case("not a picture", 3)
def _text(folder: Path) -> Sequence[str]:
    (folder / "notes.png").write_text("I am a text.\n" * 50)
    return ["notes.png"]


@case("no such file", 3)
def _missing(folder: Path) -> Sequence[str]:
    return ["nothing.png"]


@case("a folder without pictures", 3)
def _folder(folder: Path) -> Sequence[str]:
    (folder / "album").mkdir()
    return ["album"]


@case("a pattern without a match", 3)
def _pattern(folder: Path) -> Sequence[str]:
    return ["*.jpg"]


@case("a name of 300 letters", 3)
def _long_name(folder: Path) -> Sequence[str]:
    return ["n" * 300 + ".png"]


@case("a header that claims 60000x60000", 3)
def _bomb(folder: Path) -> Sequence[str]:
    content = bytearray(png_bytes())
    content[16:24] = (60_000).to_bytes(4, "big") * 2
    content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    (folder / "bomb.png").write_bytes(content)
    return ["bomb.png"]


@case("animated GIF", 3)
def _animated(folder: Path) -> Sequence[str]:
    frames = [photo().rotate(angle) for angle in (0, 90, 180)]
    frames[0].save(folder / "film.gif", save_all=True, append_images=frames[1:])
    return ["film.gif"]


# Rare but sound pictures


@case("1x1", 0)
def _pixel(folder: Path) -> Sequence[str]:
    photo(1, 1).save(folder / "pixel.png")
    return ["pixel.png"]


@case("1x5000", 0)
def _line(folder: Path) -> Sequence[str]:
    photo(1, 5000).save(folder / "line.png")
    return ["line.png"]


@case("16-bit grey", 0)
def _deep(folder: Path) -> Sequence[str]:
    levels = np.linspace(0, 65535, 24 * 16, dtype=np.uint16).reshape(16, 24)
    Image.fromarray(levels).save(folder / "deep.png")
    return ["deep.png"]


@case("palette with transparency", 0)
def _palette(folder: Path) -> Sequence[str]:
    photo().quantize(16).save(folder / "palette.png", transparency=3)
    return ["palette.png"]


@case("CMYK with a profile", 0)
def _cmyk(folder: Path) -> Sequence[str]:
    # Pillow makes no CMYK profile; an RGB one in a CMYK file is the nastier case.
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    photo(mode="CMYK").save(folder / "print.jpg", icc_profile=profile)
    return ["print.jpg"]


@case("a damaged ICC profile", 0)
def _bad_profile(folder: Path) -> Sequence[str]:
    photo().save(folder / "odd.png", icc_profile=b"no profile at all")
    return ["odd.png"]


@case("a name of two lines, not UTF-8", 0)
def _odd_name(folder: Path) -> Sequence[str]:
    name = os.fsdecode(b"two\nlines \xff.png")
    try:
        (folder / name).write_bytes(png_bytes())
    except OSError as error:
        raise SkippedError("the disk takes only UTF-8 names") from error
    return [name]


# What is wrong around the picture


@case("no permission to read", 3, is_unprivileged=True)
def _unreadable(folder: Path) -> Sequence[str]:
    (folder / "secret.png").write_bytes(png_bytes())
    (folder / "secret.png").chmod(0)
    return ["secret.png"]


@case("no permission to enter the folder", 3, is_unprivileged=True)
def _locked(folder: Path) -> Sequence[str]:
    (folder / "locked").mkdir()
    (folder / "locked" / "photo.png").write_bytes(png_bytes())
    (folder / "locked").chmod(0)
    return ["locked/photo.png"]


@case("no permission to write", 6, is_unprivileged=True)
def _unwritable(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes())
    (folder / "locked").mkdir(mode=0o500)
    return ["photo.png", "-o", "locked/out.png"]


@case("full disk", 6)
def _full_disk(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes(width=100, height=100))
    disk = folder / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=16k", "vdsr-bad-inputs", str(disk)]
    try:
        subprocess.run(mount, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        # Everyone else meets the same error on the stream that is always full.
        return ["photo.png", "-o", "-", ">/dev/full"]
    return ["photo.png", "-o", "disk/out.png"]


@case("the reader of the pipe has gone", 6)
def _closed_pipe(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes(width=100, height=100))
    return ["photo.png", "-o", "-", ">closed"]


@case("a file as the output of several", 2)
def _one_output(folder: Path) -> Sequence[str]:
    for name in ("a.png", "b.png"):
        (folder / name).write_bytes(png_bytes())
    return ["a.png", "b.png", "-o", "out.png"]


@case("a file where the output's folder should be", 6)
def _file_as_folder(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes())
    (folder / "out").write_text("a file")
    return ["photo.png", "-o", "out/photo.png"]


@case("the output exists", 6)
def _exists(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes())
    (folder / "photo_x4.png").write_bytes(b"precious")
    return ["photo.png"]


@case("an output of an unknown format", 2)
def _unknown_format(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes())
    return ["photo.png", "-o", "photo.psd"]


@case("the input as the output", 2)
def _onto_itself(folder: Path) -> Sequence[str]:
    (folder / "photo.png").write_bytes(png_bytes())
    return ["photo.png", "-o", "photo.png", "--overwrite"]


@case("one bad picture among three", 3)
def _one_of_three(folder: Path) -> Sequence[str]:
    (folder / "a.png").write_bytes(png_bytes())
    (folder / "b.png").write_bytes(b"junk")
    (folder / "c.png").write_bytes(png_bytes())
    return ["a.png", "b.png", "c.png"]


# What is wrong with the wish


def _option(name: str, *options: str, code: int = 2) -> None:
    def make(folder: Path) -> Sequence[str]:
        (folder / "photo.png").write_bytes(png_bytes())
        return ["photo.png", *options]

    CASES.append(Case(name, (code,), make))


_option("unknown model", "--model", "vdvae-sr-x5", code=4)
_option("a text as the model", "--model", "./photo.png", code=4)
_option("NaN temperature", "--temperature", "nan")
_option("negative temperature", "--temperature", "-1")
_option("scale 100", "--scale", "100")
_option("scale 'big'", "--scale", "big")
_option("a tile of 63", "--tile", "63")
_option("an overlap of a whole tile", "--tile", "64", "--overlap", "64")
_option("no batch", "--batch-size", "0")
_option("JSON and the picture on one stream", "-o", "-", "--json")


@case("a device that is not there", 5)
def _device(folder: Path) -> Sequence[str]:
    import torch

    if torch.cuda.is_available():
        raise SkippedError("this machine has CUDA")
    (folder / "photo.png").write_bytes(png_bytes())
    return ["photo.png", "--device", "cuda"]


@case("Ctrl-C in the middle", 130, interrupt_after="small_x4.png")
def _interrupt(folder: Path) -> Sequence[str]:
    photo().save(folder / "small.png")
    photo(4000, 4000).save(folder / "zz.png", compress_level=1)
    return ["small.png", "zz.png", "--batch-size", "1"]


def run(case: Case, folder: Path, model: str) -> Answer:
    """Makes a case, runs it and cleans up after it."""
    arguments = list(case.make(folder))
    before = files(folder)
    stdout = subprocess.PIPE
    if arguments[-1].startswith(">"):
        stdout = (
            closed_pipe() if arguments.pop() == ">closed" else os.open("/dev/full", os.O_WRONLY)
        )
    command = [sys.executable, "-m", "vdsr_cli", "upscale", "--model", model, "--", *arguments]
    options = [word for word in arguments if word.startswith("-")]
    if options:
        first = arguments.index(options[0])
        command[command.index("--") :] = [*arguments[first:], "--", *arguments[:first]]
    if case.is_unprivileged:
        command = [*as_anyone(), *command]
    process = subprocess.Popen(
        [os.fsencode(word) for word in command],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        stdout=stdout,
        stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
    )
    if stdout != subprocess.PIPE:
        os.close(stdout)
    if case.interrupt_after:
        interrupt(process, folder / case.interrupt_after)
    out, err = process.communicate(timeout=300)
    left = sorted(files(folder) - before)
    return Answer(process.returncode, shown(err) or shown(out or b""), left)


def files(folder: Path) -> set[str]:
    """Every file below a folder, hidden ones too."""
    return {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}


def closed_pipe() -> int:
    """The end to write to of a pipe that nobody reads."""
    reader, writer = os.pipe()
    os.close(reader)
    return writer


def as_anyone() -> list[str]:
    """A command that makes root subject to permissions; nothing for anyone else."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return []
    if shutil.which("setpriv") is None:
        raise SkippedError("root may do everything, and there is no setpriv")
    return ["setpriv", "--bounding-set", UNPRIVILEGED, "--inh-caps", UNPRIVILEGED]


def interrupt(process: "subprocess.Popen[bytes]", sign: Path) -> None:
    """Presses Ctrl-C a second after a file has appeared."""
    until = time.monotonic() + 120
    while not sign.exists() and process.poll() is None and time.monotonic() < until:
        time.sleep(0.05)
    time.sleep(1)
    process.send_signal(signal.SIGINT)


def shown(stream: bytes) -> str:
    """Printed lines as one cell of a table."""
    text = stream.decode("utf-8", "backslashreplace").strip()
    return text.replace("|", "\\|").replace("\n", "<br>")


def is_wrong(case: Case, answer: Answer) -> bool:
    """Another exit code, a traceback, or what is left of a file that was not finished."""
    is_partial = any(Path(name).name.startswith(".") or ".part" in name for name in answer.left)
    return answer.code not in case.expected or "Traceback" in answer.message or is_partial


def clean(folder: Path) -> None:
    """Unmounts and unlocks what the cases made."""
    if os.path.ismount(folder / "disk"):
        subprocess.run(["umount", str(folder / "disk")], check=False)
    for path in folder.iterdir():
        if not path.is_symlink():
            path.chmod(0o700)


def main() -> int:
    """Prints the table."""
    parser = argument_parser(__doc__)
    parser.add_argument("--model", default="vdvae-sr-x4", help="model of the runs")
    parser.add_argument("--only", default="", help="cases whose name has this word")
    options = parser.parse_args()
    model = str(Path(options.model).resolve()) if Path(options.model).exists() else options.model
    failures = 0
    print("| case | exit code | message | files left |\n|---|---|---|---|")
    for one in CASES:
        if options.only not in one.name:
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            try:
                answer = run(one, folder, model)
            except SkippedError as reason:
                print(f"| {one.name} | - | skipped: {reason} | |", flush=True)
                continue
            finally:
                clean(folder)
        wrong = is_wrong(one, answer)
        failures += wrong
        wanted = f" (should be {one.expected[0]})" if answer.code not in one.expected else ""
        left = shown(", ".join(answer.left).encode("utf-8", "surrogateescape")) or "none"
        code = f"**{answer.code}**{wanted}" if wrong else answer.code
        print(f"| {one.name} | {code} | {answer.message or 'none'} | {left} |", flush=True)
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
