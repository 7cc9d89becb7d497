"""Jobs, runs and workers in Redis: every key and every script."""
