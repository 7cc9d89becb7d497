"""Images as a worker writes them, for tests that need none in particular."""

import numpy as np

from promptmill.producer.job import Job
from promptmill.worker.encode import encode_png


def image_of(job: Job) -> bytes:
    """A small PNG with the job inside."""
    return encode_png(np.full((8, 8, 3), 127, np.uint8), job)
