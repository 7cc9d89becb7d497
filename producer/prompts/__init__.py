"""Prompt files of every format -> rows with file, line and field; and rows -> jobs (alternatives, matrices, seeds)."""
