"""`python -m tests.simulation`: seeds by the thousand, or one again.

python -m tests.simulation --seeds 10000           seeds 0 to 9999, two processes on each core
python -m tests.simulation --seed 4711             that one, with its story
python -m tests.simulation --seeds 100 --planted   how many seeds it takes to find each planted bug
"""

import argparse
import hashlib
import itertools
import logging
import math
import multiprocessing
import os
import resource
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

SHARE = 200
"""Seeds that a process plays before it tells of them, at most. Each share begins with a Redis of its own."""

HERE = Path(__file__).parents[2]


def main() -> int:
    arguments = _arguments()
    _without_hash_seeds()
    os.environ.setdefault("STORAGE_EMULATOR_HOST", "http://bucket.simulated")
    logging.disable(logging.CRITICAL)
    if arguments.planted:
        return _planted(arguments)
    if arguments.again is not None:
        return _again(range(arguments.again))
    if arguments.seed is not None:
        return _one(arguments.seed)
    return _many(range(arguments.first, arguments.first + arguments.seeds), arguments.jobs)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m tests.simulation")
    parser.add_argument("--seed", type=int, help="play this one, and tell its story")
    parser.add_argument("--again", type=int, help="play so many twice, and tell the digests of their stories")
    parser.add_argument("--seeds", type=int, default=1000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="from which on")
    # Each waits for its Redis at every request, and another goes on meanwhile.
    parser.add_argument("--jobs", type=int, default=2 * (os.cpu_count() or 1), help="processes")
    parser.add_argument("--bug", help="only the planted bugs with this in their name")
    parser.add_argument("--planted", action="store_true", help="find the bugs of planted.py")
    return parser.parse_args()


def _without_hash_seeds() -> None:
    """The order of a set of strings is drawn for each process, unless it is told not to."""
    if os.environ.get("PYTHONHASHSEED") != "0":
        command = [sys.executable, "-m", "tests.simulation", *sys.argv[1:]]
        os.execve(sys.executable, command, {**os.environ, "PYTHONHASHSEED": "0"})


def _commit() -> str:
    told = subprocess.run(["git", "describe", "--always", "--dirty"], cwd=HERE, capture_output=True, text=True)
    return told.stdout.strip() or "unknown"


def _many(seeds: range, jobs: int) -> int:
    from tests.simulation.runner import play_share

    started = time.perf_counter()
    totals: Counter[str] = Counter()
    failed = []
    context = multiprocessing.get_context("spawn")
    share = min(SHARE, math.ceil(len(seeds) / jobs))
    shares: list[Any] = [seeds[at : at + share] for at in range(0, len(seeds), share)]
    with context.Pool(jobs, maxtasksperchild=10) as pool:
        for told in pool.imap_unordered(play_share, shares):
            for seed, failure, counts in told:
                totals.update({"seeds": 1, **counts})
                if failure:
                    failed.append(seed)
                    print(f"seed {seed} at {_commit()}: {failure}", flush=True)
                    print(f"    python -m tests.simulation --seed {seed}", flush=True)
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu_s = (used.ru_utime + used.ru_stime) / len(seeds)
    minutes = (time.perf_counter() - started) / 60
    print(
        f"{totals['seeds']} seeds in {60 * minutes:.0f} s, "
        f"{totals['seeds'] / minutes:.0f} per minute on {jobs} processes, {cpu_s:.3f} s of CPU each: "
        f"{totals['jobs']} jobs, {totals['virtual_s'] / 3600:.0f} virtual hours, {totals['steps']} requests, "
        f"{totals['checks']} checks, {totals['again']} images rendered again, {len(failed)} seeds failed"
    )
    return int(bool(failed))


def _one(seed: int) -> int:
    from tests.simulation.runner import Runner

    with Runner() as runner:
        outcome = runner.play(seed)
    print("\n".join(outcome.trace))
    print(outcome.faults)
    print(f"seed {seed} at {_commit()}: {outcome.failure or 'all holds'}, {outcome.real_s:.2f} s, {outcome.requests}")
    return int(outcome.failure is not None)


def _again(seeds: range) -> int:
    from tests.simulation.runner import Runner

    with Runner() as runner:
        for seed in (*seeds, *reversed(seeds)):
            outcome = runner.play(seed)
            story = "\n".join([*outcome.trace, repr(sorted(outcome.requests.items())), str(outcome.failure)])
            print(f"seed {seed}: {hashlib.sha256(story.encode()).hexdigest()}")
    return 0


def _planted(arguments: argparse.Namespace) -> int:
    from tests.simulation.planted import PLANTED
    from tests.simulation.runner import Runner

    missed = 0
    with Runner() as runner:
        for name, plant in PLANTED.items():
            if arguments.bug and arguments.bug not in name:
                continue
            found = None
            with plant():
                for number in itertools.islice(itertools.count(arguments.first), arguments.seeds):
                    if failure := runner.play(number).failure:
                        found = number, failure
                        break
            missed += found is None
            told = f"seed {found[0]}: {found[1]}" if found else f"not within {arguments.seeds} seeds"
            print(f"{name:40} {told}", flush=True)
    return int(missed > 0)


if __name__ == "__main__":
    sys.exit(main())
