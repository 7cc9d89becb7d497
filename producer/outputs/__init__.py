"""Where images go: the contract of an output, and one file per kind of storage."""
