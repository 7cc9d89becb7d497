"""What a job is, and how jobs get into Redis. Imports no JAX and nothing of worker/."""
