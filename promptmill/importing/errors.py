"""What can be wrong with a checkpoint that is to be imported."""

from promptmill.producer.errors import PromptmillError


class CheckpointError(PromptmillError):
    """A file or folder that cannot be imported; its text is a sentence for the user."""
