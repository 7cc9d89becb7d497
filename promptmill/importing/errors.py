"""What can be wrong with a checkpoint that is to be imported."""


class CheckpointError(Exception):
    """A file or folder that cannot be imported; its text is a sentence for the user."""
