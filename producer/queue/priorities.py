"""When a run's turn is. Without Redis, for flags and those who only show it."""

PRIORITIES = {"urgent": 2, "normal": 1, "low": 0}
"""What a run's priority may be, and how much that is."""
