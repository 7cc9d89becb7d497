"""The safety checker of diffusers, in JAX."""
