"""`python -m promptmill` is `promptmill`."""

import os
import sys

# Python puts the current folder first for `-m`: a user's `queue.py` there would be imported as the standard library's.
if not sys.flags.safe_path and sys.path[0] == os.getcwd():  # noqa: PTH109 - pathlib would be looked for there too
    del sys.path[0]

if __name__ == "__main__":
    from promptmill.cli import main

    main()
