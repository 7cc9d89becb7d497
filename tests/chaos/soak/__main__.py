"""Real processes of ours, a real Redis and a bucket, and whatever may befall them, for as long as you say.

    python -m tests.chaos.soak --minutes 8 --state soak.json

prints a report as JSON, and exits with 1 where a job is lost, or an image doubled or broken. With `--state`, sessions
add up: the report is that of all of them.
"""

import argparse
import contextlib
import json
import random
import sys
import tempfile
from pathlib import Path

from tests.chaos.soak.course import Soak
from tests.chaos.soak.tally import add_to


def main() -> int:
    parser = argparse.ArgumentParser("python -m tests.chaos.soak")
    parser.add_argument("--minutes", type=float, default=60.0, help="of faults; what is under way then is finished")
    parser.add_argument("--seed", type=int, help="of which faults come when; by default another one each time")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--jobs", type=int, default=60, help="of each run")
    parser.add_argument("--folder", type=Path, help="kept; by default a temporary one")
    parser.add_argument("--state", type=Path, help="the sum of all sessions, to which this one is added")
    given = parser.parse_args()
    seed = random.SystemRandom().randrange(1 << 32) if given.seed is None else given.seed
    with contextlib.ExitStack() as stack:
        folder = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="promptmill-soak-")))
        folder.mkdir(parents=True, exist_ok=True)
        soak = Soak(folder, seed, given.workers, given.jobs)
        stack.callback(soak.close)
        tally = soak.go(given.minutes)
    tally.sessions.append(f"seed {seed}, {tally.minutes:.1f} min")
    whole = add_to(given.state, tally) if given.state else tally
    print(json.dumps(whole.told(), indent=2))
    return int(not whole.is_good)


if __name__ == "__main__":
    sys.exit(main())
