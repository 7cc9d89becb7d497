"""The structure as a table of folders and a mermaid graph of what imports what, at any commit.

python -m benchmarks.rooms [COMMIT]        [the working tree's HEAD]
"""

import ast
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import PurePosixPath

OURS = ("promptmill", "producer", "worker", "dataset")


def _git(*words: str) -> str:
    return subprocess.run(["git", *words], capture_output=True, text=True, check=True).stdout


def _sources(commit: str) -> dict[PurePosixPath, str]:
    names = [PurePosixPath(line) for line in _git("ls-tree", "-r", "--name-only", commit).splitlines()]
    return {name: _git("show", f"{commit}:{name}") for name in names if name.suffix == ".py" and name.parts[0] in OURS}


def _module(path: PurePosixPath) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def _imported(source: str) -> Iterator[str]:
    """The modules of ours that a source names, without `promptmill.` before a folder that stands at the top."""
    for node in ast.walk(ast.parse(source)):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)]
        for name in names:
            first, _, rest = name.partition(".")
            yield rest if first == "promptmill" and rest.partition(".")[0] in OURS[1:] else name


def main() -> None:
    commit = sys.argv[1] if len(sys.argv) > 1 else "HEAD"
    sources = _sources(commit)
    folder_of = {_module(path): str(path.parent) for path in sources}
    files = Counter(str(path.parent) for path in sources)
    lines = Counter[str]()
    arrows = set[tuple[str, str]]()
    for path, source in sources.items():
        here = str(path.parent)
        lines[here] += len(source.splitlines())
        arrows |= {(here, folder_of[name]) for name in _imported(source) if folder_of.get(name, here) != here}
    print(f"commit {_git('rev-parse', '--short', commit).strip()}\n\n| folder | files | lines |\n|---|---|---|")
    for folder in sorted(files):
        print(f"| `{folder}/` | {files[folder]} | {lines[folder]:,} |")
    print("\n```mermaid\nflowchart LR")
    for source, target in sorted(arrows):
        print(f"  {source} --> {target}")
    print("```")


if __name__ == "__main__":
    main()
