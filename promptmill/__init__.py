"""promptmill: prompts in through Redis, Stable Diffusion XL on JAX, images out in a bucket, each job exactly once."""

from importlib.metadata import version

__version__ = version("promptmill")
