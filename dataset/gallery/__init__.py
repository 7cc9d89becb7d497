"""A page to look at a run with: written into its output, opened from the disk. `writer` says what lies where."""
