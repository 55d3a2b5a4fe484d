"""The summary says what the metrics say, on one screen, and what it lacks."""

from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.reporting.summary import PIPED_WIDTH
from tests.reporting.conftest import SENTIMENT, without_intervals

runner = CliRunner()

POSTS: dict[str, Any] = {
    "n": 60,
    "fusion": {"macro_f1": 0.7911, "macro_f1_ci_low": 0.6219, "macro_f1_ci_high": 0.8667, "accuracy": 0.75},
    "text": {"n": 60, "macro_f1": 0.5968, "macro_f1_ci_low": 0.4275, "macro_f1_ci_high": 0.6962},
    "image": {"n": 0},
    "baselines": {"majority": {"macro_f1": 0.095, "macro_f1_ci_low": 0.07, "macro_f1_ci_high": 0.13}},
    "fusion_minus_best_baseline": {"value": 0.6961, "ci_low": 0.5, "ci_high": 0.8, "baseline": "majority"},
    "warnings": [
        "only 60 test rows",
        "no test row has image",
        "no specialist for video",
        "fusion never predicts joy; or rage",
    ],
}


def printed(folder: Path, **tracks: dict[str, Any]) -> str:
    artifacts.write_json(Layout(folder).details("evaluate"), tracks)
    result = runner.invoke(app, ["summary", "--project", str(folder)])
    assert result.exit_code == 0, result.stderr
    return result.stdout


def line(text: str, start: str) -> list[str]:
    """The words after ``start`` of the one line that starts so."""
    (of,) = (line for line in text.splitlines() if line.startswith(start))
    return of.removeprefix(start).split()


def test_scores_stand_beside_their_baselines_with_intervals(tmp_path: Path) -> None:
    text = printed(tmp_path, posts=POSTS, sentiment=SENTIMENT)
    assert line(text, "fusion  ")[:3] == ["0.791", "[0.622,", "0.867]"]
    assert line(text, "text alone, the 60 rows that have it") == ["0.597", "[0.427,", "0.696]"]
    assert line(text, "baseline: majority class") == ["0.095", "[0.070,", "0.130]"]
    assert line(text, "fusion less majority class") == ["+0.696", "[+0.500,", "+0.800]", "above", "0"]
    assert line(text, "baseline: ridge on the target alone")[:3] == ["0.534", "[0.424,", "0.624]"]
    assert line(text, "fine-tuned as inner folds choose")[3:] == ["0.626", "[0.412,", "0.832]"]
    assert line(text, "baseline: mean of the training scores")[:2] == ["-", "0.763"]
    assert line(text, "fine-tuned less ridge") == ["+0.051", "[-0.030,", "+0.132]", "-0.025", "[-0.076,", "+0.025]"]
    assert "image alone" not in text


def test_scores_of_few_groups_stand_without_intervals(tmp_path: Path) -> None:
    text = printed(tmp_path, posts=without_intervals(POSTS), sentiment=without_intervals(SENTIMENT))
    assert "[" not in text
    assert line(text, "fusion  ") == ["0.791"]
    assert line(text, "fusion less majority class") == ["+0.696", "no", "interval"]
    assert line(text, "fine-tuned less ridge") == ["+0.051", "-0.025"]


def test_warnings_are_shown_the_first_ones_in_full(tmp_path: Path) -> None:
    text = printed(tmp_path, posts=POSTS, sentiment=SENTIMENT)
    warned = [line for line in text.splitlines() if line.startswith("! ")]
    assert warned == [
        "! only 60 test rows",
        "! no test row has image",
        "! no specialist for video",
        "! and 1 more in metrics/details/evaluate.json",
        "! only 93 scored target rows: the intervals are wide",
    ]


def test_it_says_what_was_taken_and_what_is_not_behind_the_scores(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    refused = {"rows": 3, "no label": 2, "id already used": 1}
    columns = ", ".join(f"column{at}" for at in range(10))
    of_posts = {"rows": 97, "refused": refused, "ignored_columns": columns}
    target = {"refused": {"rows": 0}, "ignored_columns": ""}
    artifacts.write_json(layout.details("split"), {"posts": of_posts, "target": target, "built_in": "none"})
    image = {"rows": 97, "present": 38, "unreadable": 2, "reasons": {"truncated": 2}}
    words, of_source = ({"max_tokens": 128, "counted": 97, "cut": cut} for cut in (1, 0))
    artifacts.write_json(
        layout.details("embed"), {"text": words | {"unreadable": 0}, "image": image, "source": {"text": of_source}}
    )
    text = " ".join(printed(tmp_path, posts=POSTS, sentiment=SENTIMENT).split())
    assert "fine-tuning took ridge on the target alone in 2 of 3 folds, all of it tuned in 1 of 3 folds" in text
    assert "! posts: 3 rows are left out (2 x no label, 1 x id already used); data/split/refused.csv has them" in text
    named = ", ".join(f"column{at}" for at in range(8))
    assert f"! posts: of the table's columns are not read: {named} and 2 more" in text
    assert "! image: 2 of 40 cannot be read; metrics/details/embed.json says why" in text
    assert "! text: 1 of 97 texts have more than 128 tokens, and the rest is not read; embed.text.max_tokens" in text
    assert "source.text" not in text


@pytest.mark.parametrize("command", ["summary", "report"])
@pytest.mark.parametrize(
    "evaluated",
    [
        {"posts": {**POSTS, "warnings": "only 60 test rows; no test row has image"}},
        {"sentiment": {**SENTIMENT, "target": {key: of for key, of in SENTIMENT["target"].items() if key != "taken"}}},
    ],
)
def test_metrics_of_another_version_are_one_line(tmp_path: Path, command: str, evaluated: dict[str, Any]) -> None:
    layout = Layout(tmp_path)
    layout.params.write_text("seed: 1\n")
    artifacts.write_json(layout.details("evaluate"), evaluated)
    out = ["--out", str(tmp_path / "report.html")] if command == "report" else []
    result = runner.invoke(app, [command, *out, "--project", str(tmp_path)])
    assert result.exit_code == 1 and not (tmp_path / "report.html").exists()
    (line,) = result.stderr.splitlines()
    assert line.endswith("evaluate.json: was written by another version of this project; run `dvc repro`")


@pytest.mark.parametrize("value", ["0.8", {}, [], None])
def test_metrics_with_something_else_for_a_number_are_one_line(tmp_path: Path, value: Any) -> None:
    layout = Layout(tmp_path)
    layout.params.write_text("seed: 1\n")
    artifacts.write_json(
        layout.details("evaluate"), {"posts": {**POSTS, "fusion": {**POSTS["fusion"], "macro_f1": value}}}
    )
    result = runner.invoke(app, ["summary", "--project", str(tmp_path)])
    assert (result.exit_code, result.stdout) == (1, "")
    (line,) = result.stderr.splitlines()
    assert line.startswith(f"error: {layout.details('evaluate').parent}: a file of it was changed or is of another ver")
    assert line.endswith("); run `dvc repro`")


def test_it_says_what_to_look_at_next(tmp_path: Path) -> None:
    text = printed(tmp_path, posts=POSTS, sentiment=SENTIMENT)
    assert "1 finding, the likeliest training_rows_remembered" in " ".join(line(text, "python -m pipeline diagnose"))
    assert line(text, "python -m pipeline errors")[:4] == ["the", "15", "of", "60"]
    healthy = printed(tmp_path, sentiment={**SENTIMENT, "diagnosis": {"findings": 0}})
    assert "pipeline diagnose" not in healthy and "pipeline errors" not in healthy


def test_a_finished_run_fits_a_screen_and_no_line_is_folded(run: Layout) -> None:
    text = runner.invoke(app, ["summary", "--project", str(run.root)]).stdout
    lines = text.splitlines()
    assert len(lines) <= 40
    assert max(map(len, lines)) <= PIPED_WIDTH
    fusion = artifacts.read_json(run.details("evaluate"))["posts"]["fusion"]
    assert line(text, "fusion  ")[0] == f"{fusion['macro_f1']:.3f}"
    # What stands to the left of an interval would stand alone if a cell had been folded.
    assert all(("[" in line) == ("]" in line) for line in lines)


@pytest.mark.parametrize(
    ("tracks", "missing"),
    [({"posts": POSTS}, "Transfer"), ({"sentiment": SENTIMENT, "posts": {}}, "Posts")],
    ids=["posts", "sentiment"],
)
def test_a_track_that_was_not_evaluated_is_left_out(tmp_path: Path, tracks: dict[str, Any], missing: str) -> None:
    text = printed(tmp_path, **tracks)
    (shown,) = {"Posts", "Transfer"} - {missing}
    assert missing not in text and f"{shown}: " in text


@pytest.mark.parametrize(
    ("built_in", "expected"),
    [
        ("posts, source, target", {"Posts (built-in): 60", "Transfer (built-in): 93"}),
        ("source", {"Posts: 60", "Transfer: 93", "learned from the built-in source"}),
        ("none", {"Posts: 60", "Transfer: 93"}),
    ],
)
def test_what_is_built_in_is_said(tmp_path: Path, built_in: str, expected: set[str]) -> None:
    artifacts.write_json(Layout(tmp_path).details("split"), {"built_in": built_in})
    text = printed(tmp_path, posts=POSTS, sentiment=SENTIMENT)
    assert all(words in text for words in expected)
    assert text.count("built-in") == sum("built-in" in words for words in expected)


def test_what_is_built_in_and_not_known_is_said(tmp_path: Path) -> None:
    assert "split.json: not found, so built-in corpora are not marked" in " ".join(
        printed(tmp_path, posts=POSTS).split()
    )


def test_where_there_is_no_project_is_said(tmp_path: Path) -> None:
    result = runner.invoke(app, ["summary", "--project", str(tmp_path)])
    assert result.exit_code == 1 and len(result.stderr.splitlines()) == 1
    assert f"{tmp_path}: no project, which has a params.yaml; go to its folder, or --project" in result.stderr


@pytest.mark.parametrize("tracks", [None, {}], ids=["no file", "no track"])
def test_no_metrics_at_all_is_one_line(tmp_path: Path, tracks: dict[str, Any] | None) -> None:
    (tmp_path / "params.yaml").touch()
    if tracks is not None:
        artifacts.write_json(Layout(tmp_path).details("evaluate"), tracks)
    result = runner.invoke(app, ["summary", "--project", str(tmp_path)])
    assert result.exit_code == 1 and result.stdout == ""
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    assert "evaluate.json" in result.stderr and "dvc repro" in result.stderr
