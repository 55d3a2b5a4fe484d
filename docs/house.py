"""What the code is made of, counted: ``python -m docs.house`` prints it and renews it in ``docs/design.md``;
``--check`` compares only, and fails where the page is out of date.

Run from the project's folder. Needs the extra ``test``. The picture ``house.png`` is drawn by ``docs.pictures``.
"""

import re
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

from pipeline.cli import STAGES
from pipeline.figures.style import BLUE, FAINT, GREY, INK, ORANGE, drawing
from tests.graph import lines, modules, room
from tests.imports import closure
from tests.test_layers import FLOORS, SHARE, STAGE_LINES

PAGE = Path(__file__).parent / "design.md"
BEGIN, END = "<!-- house: begin -->", "<!-- house: end -->"

ROOMS = {
    "__main__.py": "finds the environment, then hands over to the commands",
    "cli.py": "the table of commands; a stage is imported when it is called",
    "stages": "one short file a stage: read, call the track, write",
    "serving": "answers: predict, explain, bundles, the server and its page",
    "reporting": "summary, compare, report, errors, diagnose",
    "posts": "only for posts: split, specialists, fusion, evaluation, suspects",
    "sentiment": "only for source → target: source model, adapters, fine-tuning, evaluation",
    "synthetic": "draws the built-in corpora",
    "encoders": "texts, pictures and clips → vectors",
    "corpora": "files on disk → tables: manifests, feature corpora, duplicates, splits",
    "training": "the training loop, optimizers, checkpoints; knows no particular net",
    "figures": "numbers → pictures; computes no metric",
    "scoring": "metrics, intervals, calibration, baselines, matching, leak guard, diagnostics; without torch",
    "nets": "torch modules and losses; no params, paths or files",
    "params.py": "every knob: type, range, meaning, default",
    "media": "safe reading of pictures, clips and their sound",
    "core": "paths, table schemas, reading and writing, errors, progress",
}
"""Room → what is in it."""

COLOURS = {"posts": BLUE, "sentiment": ORANGE}


def counted() -> str:
    """The counts as Markdown: rooms on their floors, then the files that each stage reruns for."""
    return "\n".join([*_rooms(), "", *_closures(), ""])


def _rooms() -> Iterator[str]:
    sizes: Counter[str] = Counter()
    files: Counter[str] = Counter()
    for path in modules():
        sizes[room(path)] += lines(path)
        files[room(path)] += 1
    total = sum(sizes.values())
    largest, most = sizes.most_common(1)[0]
    yield (
        f"{total:,} lines in {sum(files.values())} modules. The largest room is `{largest}` with {most / total:.1%} of "
        f"the lines (at most {SHARE:.0%} are allowed); the stages have {sizes['stages']} lines (fewer than "
        f"{STAGE_LINES:,} are allowed)."
    )
    yield from ("", "| floor | room | what is in it | modules | lines | share |", "|---|---|---|---|---|---|")
    for at, rooms in zip(range(len(FLOORS) - 1, -1, -1), FLOORS, strict=True):
        for name in rooms:
            share = f"{sizes[name] / total:.1%}"
            yield f"| {at} | `{name}` | {ROOMS[name]} | {files[name]} | {sizes[name]:,} | {share} |"


def _closures() -> Iterator[str]:
    """The import closure of every stage, `params.py` and each file of `core` counted too."""
    yield from (
        "| stage | its own lines | files that it imports, directly or not | lines of these |",
        "|---|---|---|---|",
    )
    for stage in STAGES:
        path = Path("pipeline", "stages", f"{stage}.py")
        needs = closure(path)
        yield f"| `{stage}` | {lines(path)} | {len(needs)} | {sum(map(lines, needs)):,} |"


def written(page: str) -> str:
    """What stands between the marks of a page. Raises ValueError when there is no such place."""
    found = re.search(rf"{BEGIN}\n(.*?){END}", page, re.DOTALL)
    if found is None:
        raise ValueError(f"no {BEGIN} … {END}")
    return found.group(1)


def renewed(page: str) -> str:
    """The page with today's counts."""
    return page.replace(f"{BEGIN}\n{written(page)}{END}", f"{BEGIN}\n{counted()}{END}")


def draw(path: Path) -> None:
    """The rooms, the top floor first: blue only for posts, orange only for sentiment, grey for both."""
    with drawing(path, (9.0, 0.42 * len(FLOORS) + 0.6), "Imports point down only") as figure:
        axes = figure.subplots()
        axes.set_axis_off()
        axes.set_xlim(0, 1)
        axes.set_ylim(-0.2, len(FLOORS))
        for at, rooms in enumerate(reversed(FLOORS)):
            width = 1 / len(rooms)
            for place, name in enumerate(rooms):
                left, colour = place * width, COLOURS.get(name, GREY)
                axes.bar(left, 0.86, width - 0.008, at, align="edge", color=FAINT, alpha=0.45, edgecolor=colour)
                axes.text(left + 0.012, at + 0.43, name, va="center", weight="bold", color=COLOURS.get(name, INK))
                if len(rooms) == 1:
                    axes.text(0.17, at + 0.43, ROOMS[name], va="center", color=INK, fontsize=9)
                else:
                    short = ROOMS[name].split(":")[0].split(";")[0]
                    axes.text(left + 0.12, at + 0.43, short, va="center", color=INK, fontsize=9)


def main(arguments: list[str]) -> int:
    if "--check" in arguments:
        current = written(PAGE.read_text(encoding="utf-8")) == counted()
        print(f"{PAGE.name}: {'as the code is' if current else 'out of date; run `python -m docs.house`'}")
        return int(not current)
    PAGE.write_text(renewed(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    print(counted(), end="")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
