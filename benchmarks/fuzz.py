"""Runs the fuzz tests for as long as one likes, each round with another seed.

    python benchmarks/fuzz.py --minutes 30 [--examples 100] [--only pictures|options|checkpoints]
    python benchmarks/fuzz.py --pictures 100000 [--seed 0]

The tests are those of ``tests/fuzz``, where CI runs a few fixed examples. A round that fails prints
what pytest says, the falsifying example included, and the seed that finds it again:

    VDSR_FUZZ_EXAMPLES=100 python -m pytest tests/fuzz --hypothesis-seed=SEED

With ``--pictures`` so many damaged pictures are read and, where that succeeds, written again, in
processes that have a thousand each; a row for each kind says how many were read, refused in one
line, or anything else, and the most memory that a process had.

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

import collections
import faulthandler
import os
import secrets
import subprocess
import sys
import time
import traceback
from pathlib import Path
from random import Random

from common import argument_parser, peak_memory_bytes

REPOSITORY = Path(__file__).resolve().parents[1]
MEMORY_MB = 800
"""Resident memory that no process may exceed: torch, and pictures of up to a megapixel."""
CHUNK = 1000


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


def damage_pictures(count: int, seed: int) -> int:
    """Prints a row for each kind of picture; 1 where anything was wrong."""
    sys.path[:0] = [str(REPOSITORY), str(REPOSITORY / "tests" / "fuzz")]
    from test_fuzz_pictures import ORIGINALS

    print("| kind | pictures | read | refused | wrong | peak MB |\n|---|---|---|---|---|---|")
    total: collections.Counter[str] = collections.Counter()
    peak_mb = 0.0
    kinds = {kind: originals for kind, originals in ORIGINALS.items() if originals}
    for index, (kind, originals) in enumerate(kinds.items()):
        ends: collections.Counter[str] = collections.Counter()
        most_mb = 0.0
        share = count // len(kinds) + (index < count % len(kinds))
        for start in range(0, share, CHUNK):
            found, used_mb = _in_a_process(originals, f"{seed} {kind} {start}", share - start)
            ends += found
            most_mb = max(most_mb, used_mb)
        ends["wrong"] += share - ends.total()  # of processes that crashed
        print(
            f"| {kind} | {share:,} | {ends['read']:,} | {ends['refused']:,} | {ends['wrong']} "
            f"| {most_mb:.0f} |",
            flush=True,
        )
        total += ends
        peak_mb = max(peak_mb, most_mb)
    print(f"\n{total.total():,} pictures: {total['wrong']} wrong; peak {peak_mb:.0f} MB")
    return int(total["wrong"] > 0 or peak_mb > MEMORY_MB)


def _in_a_process(
    originals: list[bytes], seed: str, most: int
) -> tuple[collections.Counter[str], float]:
    """How up to a thousand pictures ended, and the megabytes that the process had at most."""
    reader, writer = os.pipe()
    sys.stdout.flush()
    child = os.fork()
    if child == 0:
        os.close(reader)
        faulthandler.enable()
        chance = Random(seed)
        with os.fdopen(writer, "w") as ends:
            for _ in range(min(CHUNK, most)):
                print(_ending(chance, originals), file=ends)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as stream:
        ends = collections.Counter(stream.read().split())
    _, status, usage = os.wait4(child, 0)
    if status:
        print(f"seed {seed!r}: the process ended with {os.waitstatus_to_exitcode(status)}")
    return ends, peak_memory_bytes(usage) / 1e6


def _ending(chance: Random, originals: list[bytes]) -> str:
    from mutations import mutate
    from test_fuzz_pictures import check

    data = mutate(chance, originals)
    try:
        return "read" if check(data) else "refused"
    except BaseException:
        traceback.print_exc()
        print(f"of the picture {data.hex()}", file=sys.stderr)
        return "wrong"


def main() -> int:
    """Prints a line a round, or a row a kind of picture."""
    parser = argument_parser(__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--examples", type=int, default=100, help="of each test and round")
    parser.add_argument("--only", choices=["pictures", "options", "checkpoints"])
    parser.add_argument("--pictures", type=int, help="so many, damaged, and nothing else")
    parser.add_argument("--seed", type=int, default=0, help="of the damage to --pictures")
    options = parser.parse_args()
    if options.pictures:
        return damage_pictures(options.pictures, options.seed)
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
