"""From noise to latents: samplers as tables, sigma schedules, and PyTorch's random numbers. Knows no family."""
