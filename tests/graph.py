"""What `dvc.yaml` says of code, computed from the imports: ``python -m tests.graph`` prints what the house is made of,
``--write`` renews the lists of `dvc.yaml`, ``--check`` fails where they are out of date.

A stage depends on the files of ours that it imports, with two exceptions. A room of which it imports most files
is one folder, as ``core`` always is: DVC reads and writes all of `dvc.lock` at every stage, which takes it a
millisecond a line. And ``params.py`` is no dependency, since DVC tracks the values that a stage reads and a test pins
every default in `params.yaml`.
"""

import sys
from collections import Counter
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from tests.imports import ROOT, closure, file_of, imported

CORE = Path("pipeline", "core")
PARAMS = Path("pipeline", "params.py")
GRAPH = ROOT / "dvc.yaml"


def _yaml() -> YAML:
    yaml = YAML()
    yaml.indent(mapping=2, sequence=4, offset=2)
    yaml.width = 120
    return yaml


def code_of(stage: str) -> list[str]:
    """The dependencies on code that a stage must have, sorted."""
    files = [file for file in closure(Path("pipeline", "stages", f"{stage}.py")) if file != PARAMS]
    imported_of, all_of = Counter(map(room, files)), Counter(map(room, modules()))
    whole = {name for name, count in imported_of.items() if name == CORE.name or 2 * count > all_of[name] > 1}
    return sorted({f"pipeline/{room(file)}" if room(file) in whole else file.as_posix() for file in files})


def renewed(block: dict[str, Any], stage: str) -> list[str]:
    """A stage's dependencies: data as they are, then code."""
    return [dep for dep in block["deps"] if not dep.startswith("pipeline/")] + code_of(stage)


def write() -> None:
    """Renews the lists of `dvc.yaml` and leaves the rest of it as it is."""
    yaml = _yaml()
    graph = yaml.load(GRAPH.read_text(encoding="utf-8"))
    for stage, block in graph["stages"].items():
        block["deps"] = renewed(block, stage)
    with GRAPH.open("w", encoding="utf-8", newline="\n") as file:
        yaml.dump(graph, file)


def modules() -> list[Path]:
    """Every module of the pipeline that holds code, relative to the project."""
    found = (path.relative_to(ROOT) for path in (ROOT / "pipeline").rglob("*.py"))
    return sorted(path for path in found if path.name != "__init__.py")


def room(path: Path) -> str:
    """The folder below ``pipeline`` that a module lives in; a module beside the folders is a room of its own."""
    return path.parts[1]


def ours(path: Path) -> set[Path]:
    """The modules of ours that a module imports."""
    found = (file_of(name) for name in imported(path))
    return {file for file in found if file is not None and file.name != "__init__.py"}


def lines(path: Path) -> int:
    return len((ROOT / path).read_text(encoding="utf-8").splitlines())


def report() -> None:
    """Prints the lines of each room and the size of each stage's closure."""
    sizes: Counter[str] = Counter()
    for path in modules():
        sizes[room(path)] += lines(path)
    total = sum(sizes.values())
    print(f"{total:,} lines of code in {len(modules())} modules")
    for name, count in sizes.most_common():
        print(f"  {name:12} {count:6,}  {count / total:5.1%}")
    stages = list(YAML(typ="safe").load(GRAPH.read_text(encoding="utf-8"))["stages"])
    print("files and folders of ours that a stage reruns for")
    for stage in stages:
        print(f"  {stage:14} {len(code_of(stage)):3}")


def main(arguments: list[str]) -> int:
    if "--write" in arguments:
        write()
    if "--check" in arguments:
        stages = YAML(typ="safe").load(GRAPH.read_text(encoding="utf-8"))["stages"]
        return int(any(block["deps"] != renewed(block, stage) for stage, block in stages.items()))
    report()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
