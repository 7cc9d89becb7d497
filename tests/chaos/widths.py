"""What is wrong with programs of some widths, for the worker of poison.py and its tests. Sizes in pixels."""

DEADLY_WIDTH = 72
SLOW_WIDTH = 80
SLOW_S = 20.0
