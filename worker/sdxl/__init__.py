"""Stable Diffusion XL in Flax NNX, and nothing else: it knows no Redis, no Celery and no bucket."""
