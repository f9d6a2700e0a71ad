"""Runs `vdsr` from outside into every misfortune of this folder and counts what goes wrong.

    python benchmarks/faults [--short] [--only WORD] [--minutes M] [--seed 0] [--model NAME|PATH]

Each module beside this one holds the faults of one kind. A full run tries every fault as often as
it says; ``--short`` tries each once, and ``--minutes`` ends either. Printed is a row of a Markdown
table for every fault, the first wrongs below it, and the sums; all wrongs go to stderr as they
come. The exit code is 1 where anything was wrong.
"""

import argparse
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from importlib import import_module
from pathlib import Path

from runner import FAULTS, MEMORY_MB, Fault, SkippedError, Trial

KINDS = ("tracebacks", "lost", "codes", "memory", "wrong")


def attempt(one: Fault, model: str, seed: int) -> Trial:
    """One try, in a folder of its own."""
    with tempfile.TemporaryDirectory(prefix="vdsr-faults-") as name:
        trial = Trial(folder=Path(name), model=model, chance=random.Random(f"{one.name} {seed}"))
        one.make(trial)
        return trial


def main() -> int:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--short", action="store_true", help="try each fault once")
    parser.add_argument("--only", default="", help="faults whose name has this word")
    parser.add_argument("--minutes", type=float, default=float("inf"), help="then begin no try")
    parser.add_argument("--seed", type=int, default=0, help="of what is random")
    parser.add_argument("--model", default="vdvae-sr-x4-tiny", help="of the runs")
    options = parser.parse_args()
    # In the background of a shell Ctrl-C is ignored, and would be in every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    model = str(Path(options.model).resolve()) if Path(options.model).exists() else options.model
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        import_module(path.stem)
    total: Counter[str] = Counter()
    until = time.monotonic() + 60 * options.minutes
    peak_mb = 0.0
    print(f"| fault | tries | runs | {' | '.join(KINDS)} | peak MB |")
    print("|---" * (len(KINDS) + 4) + "|", flush=True)
    for one in FAULTS:
        if options.only not in one.name:
            continue
        counts: Counter[str] = Counter()
        wrongs: list[str] = []
        most_mb = 0.0
        times = 0
        try:
            for number in range(1 if options.short else one.times):
                if time.monotonic() > until:
                    break
                times += 1
                trial = attempt(one, model, options.seed + number)
                counts += trial.counts
                wrongs += trial.wrongs
                for line in trial.wrongs:
                    print(line.strip(), file=sys.stderr, flush=True)
                most_mb = max(most_mb, trial.peak_mb)
        except SkippedError as reason:
            print(f"| {one.name} | skipped: {reason} |", flush=True)
            continue
        figures = " | ".join(str(counts[kind]) for kind in KINDS)
        print(f"| {one.name} | {times} | {counts['runs']} | {figures} | {most_mb:.0f} |")
        for line in wrongs[:10]:
            print(f"    {line.strip()[-700:]}")
        sys.stdout.flush()
        total += counts
        peak_mb = max(peak_mb, most_mb)
    sums = ", ".join(f"{total[kind]} {kind}" for kind in KINDS)
    tried = f"{total['runs']:,} runs, {total['signals']:,} signals"
    print(f"\n{tried}: {sums}; peak {peak_mb:.0f} MB of {MEMORY_MB} allowed")
    return int(any(total[kind] for kind in KINDS))


if __name__ == "__main__":
    sys.exit(main())
