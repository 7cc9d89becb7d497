"""What `import promptmill` shows."""

import ast
import builtins
from pathlib import Path

import pytest

import promptmill


@pytest.mark.parametrize("name", promptmill.__all__)
def test_every_name_is_there_and_known_to_type_checkers(name: str):
    assert getattr(promptmill, name) is not None
    tree = ast.parse(Path(str(promptmill.__file__)).read_text())
    typed = {alias.name for node in ast.walk(tree) if isinstance(node, ast.ImportFrom) for alias in node.names}
    assert name in typed or name == "__version__"


def test_completion_shows_the_public_face_alone():
    assert dir(promptmill) == sorted(promptmill.__all__)


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'nosuch'"):
        promptmill.nosuch  # noqa: B018


ROOT = Path(str(promptmill.__file__)).parents[1]
INNER = {
    "PromptmillError",
    "TemplateError",
    "SentinelUrlError",
    "MalformedEntry",
    "Stopping",
    "TaskRefused",
    "_SessionForgotten",
}
"""The root, and what no user sees: caught in its own room, or sent to a Celery client."""


def test_every_error_of_ours_is_of_one_tree():
    files = [path for room in ("producer", "worker", "dataset", "promptmill") for path in (ROOT / room).rglob("*.py")]
    classes = [
        node for path in files for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ClassDef)
    ]
    built_in = {name for name, kind in vars(builtins).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    roots = {node.name for node in classes if built_in & {ast.unparse(base) for base in node.bases}}
    assert roots == INNER
