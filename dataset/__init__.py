"""What becomes of a finished run: its manifest and its shards. Imports producer/ only."""
