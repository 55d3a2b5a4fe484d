"""The pages keep their word: every command, option and knob that they show exists and is run somewhere for real, every
link leads somewhere, and the README stays one page.
"""

import ast
import itertools
import os
import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
import typer
from dvc.cli import parse_args
from dvc.utils.hydra import apply_overrides
from ruamel.yaml import YAML

from docs import house, outputs
from pipeline import params
from pipeline.cli import STAGES, app
from tests.graph import modules, room
from tests.imports import ROOT, file_of
from tests.test_layers import FLOORS

PAGES = outputs.PAGES
NAMES = [path.name for path in PAGES]


def read(path: Path) -> str:
    return path.read_text(encoding="utf-8")


TEXTS = {path.name: read(path) for path in PAGES}

LINES = 150
"""Of the README, at most."""

POSIX = pytest.mark.skipif(os.name == "nt", reason="the pages are played by a POSIX shell")

FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
INLINE = re.compile(r"`((?:python -m|dvc|make|pip) [^`]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
PIPELINE = ["python", "-m", "pipeline"]
WAYS = {
    *("posts.manifest", "posts.media", "tracks"),
    *("source.corpus", "source.texts", "target.corpus", "target.level", "target.protocol"),
}
"""Knobs that lead another way through the graph: each set of them is a command of its own."""
GROUPS = {"exp", "metrics", "params", "plots", "queue", "artifacts"}
"""Commands of DVC that have commands of their own."""
FILTERS = {"printf", "cut", "head", "git"}
"""Other programs around a command."""

END_TO_END, SPLIT = "tests/test_end_to_end.py", "tests/stages/test_split.py"
COMMAND, APP = "tests/serving/test_command.py", "tests/serving/test_app.py"
FACES = "tests/encoders/test_faces.py"

RUN_BY = {
    "make repro": "Makefile",
    "make test": ".ci/run",
    "make check": "Makefile",
    "make matrix": "Makefile",
    "pip install": "Makefile",
    "pip install --no-deps": f"{FACES}::test_packages_that_are_missing_are_named_with_their_command",
    "python -m tests.graph": "tests/test_dvc_yaml.py::test_deps_hold_every_file_that_the_stage_imports",
    "python -m tests.graph --write": "tests/test_dvc_yaml.py::test_deps_hold_every_file_that_the_stage_imports",
    "python -m docs.house": "tests/test_docs.py::test_the_counted_house_is_this_one",
    "python -m docs.outputs": "tests/test_docs.py::test_outputs_are_played_in_order_and_cut",
    "python -m docs.pictures": "docs/pictures.py::main",
    "python -m benchmarks.many_posts": "tests/test_many_posts.py::test_the_made_posts_are_divided",
    "python -m benchmarks.scale": "tests/test_scale.py::test_the_measured_runs_come_out_and_wrong_rates_are_refused",
    "python -m benchmarks.training_memory": "tests/test_training_memory.py::test_a_way_to_need_less_does",
    "python -m benchmarks.study": "tests/test_study.py::test_an_experiment_is_a_line_with_its_difference_to_the_first",
    "python -m tests.robustness.bad_inputs": "tests/robustness/test_bad_inputs.py::test_a_wrong_input_gets_its_line",
    "python -m tests.robustness.kills": "tests/robustness/test_kills.py",
    "python -m tests.robustness.fuzz --minutes": "tests/robustness/test_fuzz.py",
    "python -m tests.robustness.guided --minutes": "tests/robustness/test_guided.py",
    "python -m tests.robustness.forgotten": "tests/robustness/forgotten.py::main",
    "python -m tests.robustness.experiments": "tests/robustness/experiments.py::main",
    "python -m tests.robustness.matrix --cell": "tests/robustness/test_matrix.py",
    "python -m pipeline params": "tests/test_cli.py::test_params_prints_every_knob",
    "python -m pipeline fetch": "tests/corpora/test_remote.py::test_what_cannot_be_is_one_line",
    "python -m pipeline forget": "tests/posts/test_forgetting.py::forget",
    "dvc remote --default": "tests/test_dvc_remote.py",
    "dvc push": "tests/test_dvc_remote.py",
    "dvc pull": "tests/test_dvc_remote.py",
    "dvc status": "tests/test_dvc_remote.py",
    "python -m pipeline extract --out --transcribe": "tests/encoders/test_transcription.py",
    "dvc exp run -S source.corpus source.texts target.corpus tracks": "tests/encoders/test_extraction.py::project",
    "python -m pipeline predict --manifest --out": f"{COMMAND}::test_a_manifest",
    "python -m pipeline predict --text --track": COMMAND,
    "python -m pipeline serve": "docs/pictures.py::served",
    "curl /api/predict": f"{APP}::test_a_form_and_json_get_what_the_predictor_says",
    "curl /api/score": APP,
    "dvc exp run -S posts.manifest posts.media": f"{END_TO_END}::corpus",
    "dvc exp run -S posts.manifest posts.media tracks": END_TO_END,
    "dvc exp run -S tracks": END_TO_END,
    "dvc exp run -S source.corpus source.texts target.corpus": SPLIT,
    "dvc exp run -S source.corpus source.texts target.corpus target.protocol": SPLIT,
    "dvc exp run -S source.corpus source.texts target.corpus target.level target.protocol": SPLIT,
}
"""Command as ``key`` gives it → what runs it for real: a test that names all of it, a script of `docs`, a recipe."""


# --- what the pages show ---------------------------------------------------------------------------------------------


def commands(page: str) -> Iterator[list[str]]:
    """The words of every simple command of the blocks in ``sh``, of the marks, and of code in running text."""
    shown = [block for language, block in FENCE.findall(page) if language == "sh"]
    shown += [step.command for step in outputs.steps(page)]
    shown += [code.replace("\\|", "|") for code in INLINE.findall(FENCE.sub("", page))]
    for block in shown:
        yield from simple(block)


def simple(script: str) -> Iterator[list[str]]:
    """A script for a shell, taken apart at the ends of lines and at pipes."""
    for line in script.replace("\\\n", " ").splitlines():
        words = shlex.shlex(line, posix=True, punctuation_chars="|")
        words.whitespace_split = True
        for pipe, command in itertools.groupby(words, key=lambda word: word == "|"):
            found = list(command)
            if not pipe and found[0] not in FILTERS:
                yield found


def sets(words: list[str]) -> list[str]:
    """What ``-S`` of an experiment sets, ``key=value``."""
    return [value for flag, value in itertools.pairwise(words) if flag == "-S"]


def key(words: list[str]) -> str:
    """A command without values: program, subcommand, options, and the corpora and tracks that an experiment sets."""
    if words[0] == "curl":
        return f"curl {address(words)}"
    head = words[: 4 if words[:3] == PIPELINE else 3 if words[0] == "python" or words[1] in GROUPS else 2]
    options = sorted({word for word in words[len(head) :] if re.fullmatch(r"--[a-z-]+", word)})
    knobs = sorted({value.partition("=")[0] for value in sets(words)} & WAYS)
    return " ".join([*head, *options, *(["-S", *knobs] if knobs else [])])


def address(words: list[str]) -> str:
    """The path that ``curl`` asks for."""
    return "/" + next(word for word in words if word.startswith("http")).split("/", 3)[3]


SHOWN = [(name, words) for name in NAMES for words in commands(TEXTS[name])]
DISTINCT = {key(words): words for _, words in SHOWN}
PLAYED = {key(words) for page in TEXTS.values() for step in outputs.steps(page) for words in simple(step.command)}


# --- what they show is there -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("shown", DISTINCT.values(), ids=DISTINCT.keys())
def test_a_command_exists_with_these_options(shown: list[str]) -> None:
    program, *rest = shown
    if shown[:3] == PIPELINE:
        name, *given = shown[3:]
        command = typer.main.get_command(app).commands[name]  # pyright: ignore[reportAttributeAccessIssue]
        left = command.make_parser(command.context_class(command)).parse_args(given)[1]
        assert left == []
    elif program == "python":
        assert rest[0] == "-m"
        file = file_of(rest[1])
        assert file is not None
        assert all(word in read(ROOT / file) for word in rest[2:] if word.startswith("-"))
    elif program == "dvc":
        parse_args(rest)
    elif program == "make":
        assert re.search(rf"^{rest[0]}:", read(ROOT / "Makefile"), re.MULTILINE)
    elif program == "curl":
        served = "".join(read(path) for path in (ROOT / "pipeline" / "serving").glob("*.py"))
        assert f'"{address(shown)}"' in served
    else:
        assert shown[:2] == ["pip", "install"]


def test_extras_that_pip_is_asked_for_are_declared() -> None:
    project = tomllib.loads(read(ROOT / "pyproject.toml"))["project"]
    asked = {
        extra
        for page in TEXTS.values()
        for found in re.findall(rf"(?:{project['name']}|\"\.)\[(\w+)\]", page)
        for extra in found.split(",")
    }
    assert asked <= set(project["optional-dependencies"])


def test_the_readme_lists_every_command() -> None:
    rows = [line for line in TEXTS["README.md"].splitlines() if line.startswith("| `")]
    listed = [name for row in rows for name in re.findall(r"`(\w+)`", row.split("|")[1])]
    assert listed[: len(STAGES)] == list(STAGES)
    assert sorted(listed) == sorted(typer.main.get_command(app).commands)  # pyright: ignore[reportAttributeAccessIssue]


SETTINGS = {" ".join(sets(words)): sets(words) for _, words in SHOWN if sets(words)}


@pytest.mark.parametrize("settings", SETTINGS.values(), ids=SETTINGS.keys())
def test_an_experiment_sets_knobs_that_there_are_to_values_that_they_take(settings: list[str], tmp_path: Path) -> None:
    """As DVC sets them: a key with a ``+`` must be one that `params.yaml` lacks, a key without one that it has."""
    changed = tmp_path / "params.yaml"
    shutil.copyfile(ROOT / "params.yaml", changed)
    apply_overrides(changed, settings)
    params.load(changed)


def test_knobs_in_running_text_are_there() -> None:
    """Code such as `adapter.label_weight`, if it begins with a block of the params."""
    values = YAML(typ="safe").load(read(ROOT / "params.yaml"))
    known = {name for name, _, _ in params.knobs()}
    known |= {name[:at] for name in known for at, sign in enumerate(name) if sign == "."}
    for page in TEXTS.values():
        for name in re.findall(r"`([a-z_0-9]+\.[a-z_.]+)(?:=[^`]*)?`", FENCE.sub("", page)):
            assert name in known or name.split(".")[0] not in values or (ROOT / name).exists(), name


# --- links, lengths, privacy -----------------------------------------------------------------------------------------


def anchors(page: str) -> set[str]:
    """Of headings, as GitHub makes them."""
    titles = re.findall(r"^#+ (.*)$", FENCE.sub("", page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("path", PAGES, ids=NAMES)
def test_links_lead_somewhere(path: Path) -> None:
    for link in LINK.findall(FENCE.sub("", TEXTS[path.name])):
        if link.startswith("https://"):
            continue
        file, _, anchor = link.partition("#")
        target = path.parent / file if file else path
        assert target.exists(), link
        assert not anchor or anchor in anchors(read(target)), link


def test_every_page_and_picture_is_reached_from_the_readme() -> None:
    linked = {
        (path.parent / link.partition("#")[0]).resolve() for path in PAGES for link in LINK.findall(TEXTS[path.name])
    }
    there = [path for path in (ROOT / "docs").iterdir() if path.suffix in (".md", ".png")]
    assert [path.name for path in there if path.resolve() not in linked] == []


def test_the_readme_is_one_page() -> None:
    assert len(TEXTS["README.md"].splitlines()) <= LINES


def test_no_page_names_a_machine_or_an_address_but_that_of_a_paper() -> None:
    for name, page in TEXTS.items():
        assert re.findall(r"(?<![\w./])/(?:home|root|tmp|work|mnt|Users)/\S*", page) == [], name
        assert set(re.findall(r"https?://([^/\s)]+)", page)) <= {"doi.org", "127.0.0.1:8000"}, name


# --- what they show was run ------------------------------------------------------------------------------------------


def test_every_command_is_run_somewhere() -> None:
    """A command that is played with further options is run too."""
    alone = [name for name in DISTINCT if not any(set(name.split()) <= set(played.split()) for played in PLAYED)]
    assert sorted(RUN_BY) == sorted(alone)


@pytest.mark.parametrize("name", RUN_BY)
def test_what_runs_a_command_names_all_of_it(name: str) -> None:
    file, _, test = RUN_BY[name].partition("::")
    source = read(ROOT / file)
    if test:
        assert test in {node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)}
    words = name.partition(" -S ")[2].split() or [word for word in name.split() if word not in (*PIPELINE, "curl")]
    for word in words:
        last = word.rpartition(".")[2]
        assert re.search(rf"(?<![\w-]){re.escape(last)}(?![\w-])", source), f"{file} does not name {last}"


@pytest.mark.skipif(shutil.which("make") is None, reason="no make here")
def test_make_runs_the_graph_and_the_tests() -> None:
    for target, wanted in (("repro", "dvc repro"), ("test", "-m pytest")):
        done = subprocess.run(["make", "--dry-run", target], cwd=ROOT, capture_output=True, text=True, check=True)
        assert wanted in done.stdout


# --- the scripts -----------------------------------------------------------------------------------------------------


def test_the_counted_house_is_this_one() -> None:
    """Floors and rooms to the letter, sizes to a tenth, so that not every line of code asks for a new page."""
    shown, now = (figures(text) for text in (house.written(TEXTS["design.md"]), house.counted()))
    assert list(shown) == list(now)
    for row, numbers in now.items():
        assert shown[row] == pytest.approx(numbers, rel=0.1, abs=0.5), f"{row}: run `python -m docs.house`"


def figures(text: str) -> dict[str, list[float]]:
    """Row → its numbers."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith("|")]
    words = [[cell for cell in row if not re.fullmatch(r"[\d,.]+%?", cell)] for row in rows]
    return {
        " ".join(named): [float(cell.strip("%").replace(",", "")) for cell in row if cell not in named]
        for named, row in zip(words, rows, strict=True)
    }


def test_every_room_is_described() -> None:
    assert set(house.ROOMS) == {name for rooms in FLOORS for name in rooms} == {room(path) for path in modules()}


def test_counts_are_written_between_the_marks_only() -> None:
    page = f"before\n{house.BEGIN}\nold\n{house.END}\nafter\n"
    assert house.renewed(page) == f"before\n{house.BEGIN}\n{house.counted()}{house.END}\nafter\n"
    with pytest.raises(ValueError, match="no <!-- house"):
        house.renewed("no marks")


@POSIX
def test_outputs_are_played_in_order_and_cut(tmp_path: Path) -> None:
    page = (
        "<!-- run -->\n```sh\nprintf '%s\\n' a b c > file  # three lines\n```\nwords\n"
        "<!-- output, 2 lines: cat file -->\n```\nold\n```\n"
        "<!-- output: echo 11-27 16:55 abc1234 -->\n```\n$ echo 11-27 16:55 abc1234\n01-01 00:00 def5678\n```\n"
    )
    now, whole = outputs.renewed(page, tmp_path)
    assert whole
    assert now == page.replace("old", "$ cat file\na\nb\n…")
    assert outputs.renewed(now, tmp_path) == (now, True)


@POSIX
def test_a_command_that_fails_or_is_silent_leaves_its_block(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for command in ("echo why >&2; exit 1", "true"):
        page = f"<!-- output: {command} -->\n```\nold\n```\n"
        assert outputs.renewed(page, tmp_path) == (page, False)
    assert "why" in capsys.readouterr().err


def test_a_mark_without_a_block_is_refused() -> None:
    for page in ("<!-- output: ls -->\nwords\n", "<!-- run -->\n```\nls\n```\n"):
        with pytest.raises(ValueError, match="without a fenced block"):
            outputs.steps(page)
