"""Coverage-guided fuzzing of reading pictures, by atheris: what the fuzz tests' mutations miss.

    pip install atheris
    python benchmarks/fuzz_decoders.py CORPUS [-max_total_time=600] [other options of libFuzzer]

CORPUS is a folder that is filled with the small pictures of ``tests/fuzz`` and with whatever
reaches new code: Pillow's Python and this package's are instrumented, C decoders are not. Anything
but a picture or an InputError ends the run and leaves a file ``crash-...``.
"""

import io
import sys
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["PIL", "vdsr_cli.images"]):
    from vdsr_cli.errors import InputError
    from vdsr_cli.images import read_picture

MAX_PIXELS = 100_000


def read_one(data: bytes) -> None:
    """Reads a file's bytes."""
    try:
        read_picture(io.BytesIO(data), max_pixels=MAX_PIXELS)
    except InputError as error:
        if "\n" in str(error):
            raise AssertionError(f"{error!r} has more than one line") from error


def fill(corpus: Path) -> None:
    """Puts the fuzz tests' pictures into a folder."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "fuzz"))
    from test_fuzz_pictures import ORIGINALS

    corpus.mkdir(parents=True, exist_ok=True)
    for kind, pictures in ORIGINALS.items():
        for index, data in enumerate(pictures):
            (corpus / f"{kind}-{index}").write_bytes(data)


if __name__ == "__main__":
    fill(Path(sys.argv[1]))
    atheris.Setup(sys.argv, read_one)
    atheris.Fuzz()
