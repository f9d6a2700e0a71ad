"""Runs the fuzz tests for as long as one likes, each round with another seed.

    python benchmarks/fuzz.py --minutes 30 [--examples 100] [--only pictures|options|checkpoints]

The tests are those of ``tests/fuzz``, where CI runs a few fixed examples. A round that fails prints
what pytest says, the falsifying example included, and the seed that finds it again:

    VDSR_FUZZ_EXAMPLES=100 python -m pytest tests/fuzz --hypothesis-seed=SEED

What was tried when these tests were made, and what it found:

    target                           tried              found
    mutated PNG and JPEG             4,000 of each      nothing
    mutated TIFF                     up to 3,000        a warning of a mean that overflows; EXIF of
                                                        any BigTIFF: traceback
    pictures, by fuzz_decoders.py    235,537 in 301 s   nothing
    configurations of weights files  25 a test, fixed   tracebacks (no levels, a number for a layer
                                     and absurd values  string), memory and time without bounds
    opcodes of pickles               25 a test, fixed   none is run; bytearray(n) and deflated
                                                        records filled the memory
    options                          1,000 a test       names longer than a file's may be: traceback
    answers of servers, the cache    25 a test, fixed   tracebacks: redirects to no address, lengths
                                                        of 5,000 digits, deep JSON

Exit code 0: no round has failed. A crash of the interpreter itself counts as a failure.
"""

import argparse
import os
import secrets
import subprocess
import sys
import time
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[1]


def run_round(words: list[str], examples: int, seed: int) -> subprocess.CompletedProcess[str]:
    """One run of the tests."""
    command = [sys.executable, "-X", "faulthandler", "-m", "pytest", "--tb=short", *words]
    return subprocess.run(
        [*command, f"--hypothesis-seed={seed}"],
        cwd=REPOSITORY,
        env={**os.environ, "VDSR_FUZZ_EXAMPLES": str(examples), "PYTHONPATH": str(REPOSITORY)},
        capture_output=True,
        text=True,
    )


def main() -> int:
    """Prints a line a round."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--examples", type=int, default=100, help="of each test and round")
    parser.add_argument("--only", choices=["pictures", "options", "checkpoints"])
    options = parser.parse_args()
    words = [f"tests/fuzz/test_fuzz_{options.only}.py" if options.only else "tests/fuzz"]
    until, failures = time.monotonic() + 60 * options.minutes, 0
    while time.monotonic() < until:
        seed, started = secrets.randbelow(2**32), time.monotonic()
        done = run_round(words, options.examples, seed)
        print(f"seed {seed}: {done.stdout.splitlines()[-1]}", flush=True)
        if done.returncode:
            failures += 1
            print(done.stdout, done.stderr, sep="\n", flush=True)
        if time.monotonic() - started < 1:
            break  # nothing was run
    return int(failures > 0)


if __name__ == "__main__":
    sys.exit(main())
