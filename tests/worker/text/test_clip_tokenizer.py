"""The tokenizer's library says nothing of a PyTorch that nobody needs."""

import os
import subprocess
import sys

WITHOUT_TORCH = """
import importlib.util, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name.partition(".")[0] == "torch" else find(name, *more)
{load}
"""


def words(load: str) -> str:
    command = [sys.executable, "-c", WITHOUT_TORCH.format(load=load)]
    environ = {name: value for name, value in os.environ.items() if not name.startswith("TRANSFORMERS_")}
    ran = subprocess.run(command, env=environ, capture_output=True, text=True, check=True)
    return ran.stdout + ran.stderr


def test_the_library_would_speak_of_pytorch():
    """So that the test below can fail."""
    assert "PyTorch" in words("from transformers import CLIPTokenizer")


def test_a_worker_does_not():
    assert words("import promptmill.worker.text.prompts") == ""
