"""The worker starts itself anew in its own place: same command, same process id, an empty memory.

What supervises it (systemd, Kubernetes, `promptmill render`) sees one process throughout; under none it is needed most.
"""

import logging
import os
import signal
import sys

logger = logging.getLogger(__name__)


def restart() -> None:
    """Never returns. Threads that hang in a driver end here: nothing else ends them."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    try:
        os.execv(sys.executable, [sys.executable, *sys.orig_argv[1:]])
    except OSError:
        os.kill(os.getpid(), signal.SIGKILL)  # as a death, after which a supervisor starts another
