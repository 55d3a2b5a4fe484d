"""The report says what metrics and plots say, stands alone, and trusts no text."""

import base64
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from pipeline import params
from pipeline.cli import app
from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.reporting import report
from tests.reporting.conftest import HOSTILE, SENTIMENT, Page, dvc_pictures, without_intervals

runner = CliRunner()


def numbers(value: Any) -> Iterator[float]:
    """Every number in a metrics file."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, int | float):
        yield float(value)


def written(layout: Layout, out: Path) -> Page:
    report.write(params.load(layout.params), layout, out)
    return Page(out)


def copied(run: Layout, folder: Path) -> Layout:
    shutil.copytree(run.root, folder / "copy")
    return Layout(folder / "copy")


@pytest.fixture(scope="module")
def page(run: Layout, tmp_path_factory: pytest.TempPathFactory) -> Page:
    return written(run, tmp_path_factory.mktemp("page") / "report.html")


def test_pictures_are_those_that_dvc_shows_byte_by_byte(run: Layout, page: Page) -> None:
    shown = set(page.values("src"))
    # The gallery shows the posts of the contact sheet, one by one and with what they are copies of.
    for path in set(dvc_pictures()) - {"plots/evaluate/contact_sheet.png"}:
        content = base64.b64encode((run.root / path).read_bytes()).decode()
        assert f"data:image/png;base64,{content}" in shown, path


def test_numbers_are_those_of_the_metrics(run: Layout, page: Page) -> None:
    known = {number for path in run.details("x").parent.glob("*.json") for number in numbers(artifacts.read_json(path))}
    shown = {float(attrs["value"] or "") for tag, attrs in page.tags if tag == "data"}
    assert shown <= known
    metrics = artifacts.read_json(run.details("evaluate"))
    posts, steps = metrics["posts"], metrics["sentiment"]["target"]
    fusion, gain = posts["fusion"], posts["fusion_minus_best_baseline"]
    per_class = {*fusion["precision"].values(), *fusion["recall"].values(), *fusion["f1"].values()}
    ablation = set(numbers(posts["ablation"]))
    headline = {fusion["macro_f1"], fusion["macro_f1_ci_low"], fusion["macro_f1_ci_high"], gain["value"], fusion["ece"]}
    target = set(numbers({key: of for key, of in steps.items() if key not in ("n", "groups", "taken")}))
    assert "ridge on the target alone in 2 of 3 folds, all of it tuned in 1 of 3 folds" in page.text
    assert headline | per_class | ablation | target <= shown
    assert f"{fusion['macro_f1']:.3f} [{fusion['macro_f1_ci_low']:.3f}, {fusion['macro_f1_ci_high']:.3f}]" in page.text


def test_it_needs_nothing_from_elsewhere(page: Page) -> None:
    assert all(value.startswith("data:image/") for value in page.values("src"))
    assert all(value.startswith("#") for value in page.values("href"))
    assert {value[1:] for value in page.values("href")} <= set(page.values("id"))
    assert not {"script", "link", "iframe", "object", "form"} & {tag for tag, _ in page.tags}
    assert not {name for _, attrs in page.tags for name in attrs if name.startswith("on")}
    style = page.path.read_text(encoding="utf-8").partition("</style>")[0]
    assert "url(" not in style and "@import" not in style
    assert all(attrs.get("alt") for tag, attrs in page.tags if tag == "img")


def test_texts_of_the_data_stay_texts(page: Page) -> None:
    assert " ".join(HOSTILE.split()) in page.text
    assert "<b>7</b>" in page.text  # an id of refused.csv
    assert "<script>" not in page.path.read_text(encoding="utf-8")


def test_the_gallery_shows_the_most_confident_mistakes(run: Layout, page: Page) -> None:
    errors = (run.plots("evaluate") / "errors.csv").read_text(encoding="utf-8").splitlines()[1:]
    shown = min(len(errors), report.CARDS)
    at = [page.text.index(f"post {line.partition(',')[0]}") for line in errors[:shown]]
    assert at == sorted(at)
    assert page.text.count("taken for") == shown
    assert "cannot be read: not a clip" in page.text


def test_the_same_run_gives_the_same_bytes(run: Layout, page: Page, tmp_path: Path) -> None:
    assert written(run, tmp_path / "again.html").path.read_bytes() == page.path.read_bytes()


def test_the_diagnosis_is_told_in_full(page: Page) -> None:
    finding = SENTIMENT["diagnosis"]["training_rows_remembered"]
    expected = f"35 % measured {finding['measured']} means {finding['means']} try {finding['try']}"
    assert expected in page.text


def test_changed_params_are_named_and_quoted(page: Page) -> None:
    changed = page.text.partition("What differs from the defaults")[2].partition("All ")[0]
    assert "evaluate.bootstrap 200 2000" in changed
    assert "evaluate.confidence" not in changed
    assert ("code", {}) in page.tags and "`" not in page.text
    assert "dvc exp run -S posts.media=media -S evaluate.bootstrap=200 -S evaluate.gallery=4" in page.text


@pytest.mark.parametrize("track", ["posts", "sentiment"])
def test_a_track_that_is_off_is_left_out(run: Layout, tmp_path: Path, track: str) -> None:
    layout = copied(run, tmp_path)
    metrics = artifacts.read_json(layout.details("evaluate"))
    artifacts.write_json(layout.details("evaluate"), {key: of for key, of in metrics.items() if key != track})
    page = written(layout, tmp_path / "report.html")
    sections = {"posts": {"confusion", "ablation", "calibration", "errors"}, "sentiment": {"transfer"}}
    other = "sentiment" if track == "posts" else "posts"
    assert sections[track] & set(page.values("id")) == set()
    assert {f"#{name}" for name in sections[track]} & set(page.values("href")) == set()
    assert sections[other] <= set(page.values("id"))


@pytest.mark.parametrize(
    ("built_in", "expected"),
    [
        ("posts, source, target", ["The posts are built in", "Source and target are built in"]),
        ("source", ["Source is built in"]),
        ("none", []),
    ],
)
def test_what_is_built_in_is_said(run: Layout, tmp_path: Path, built_in: str, expected: list[str]) -> None:
    layout = copied(run, tmp_path)
    artifacts.write_json(
        layout.details("split"), {**artifacts.read_json(layout.details("split")), "built_in": built_in}
    )
    text = written(layout, tmp_path / "report.html").text
    assert text.count("built in:") == len(expected)
    assert all(words in text for words in expected)


def test_a_modality_without_a_specialist_says_why(run: Layout, tmp_path: Path) -> None:
    layout = copied(run, tmp_path)
    artifacts.write_json(layout.details("train_video"), {"posts": {"train_rows": 0, "warnings": ["no clip <at all>"]}})
    assert "Not part of this run: this specialist. no clip <at all>" in written(layout, tmp_path / "report.html").text


def test_only_the_metrics_of_evaluate_are_needed(run: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    shutil.copy(run.params, layout.params)
    layout.details("evaluate").parent.mkdir(parents=True)
    shutil.copy(run.details("evaluate"), layout.details("evaluate"))
    text = written(layout, tmp_path / "report.html").text
    for name in (
        "metrics/details/split.json",
        "data/split/refused.csv",
        "plots/evaluate/errors.csv",
        "plots/evaluate/curve.png",
    ):
        assert f"Not part of this run: {name}. dvc repro makes it." in text


def test_a_run_whose_test_rows_are_of_few_groups_has_no_intervals(run: Layout, tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    shutil.copy(run.params, layout.params)
    evaluated = artifacts.read_json(run.details("evaluate"))
    artifacts.write_json(layout.details("evaluate"), without_intervals(evaluated))
    text = written(layout, tmp_path / "report.html").text
    assert f"{evaluated['posts']['fusion']['macro_f1']:.3f}" in text
    assert text.count("too few groups for an interval, so it may be chance") == 3
    assert f"[{evaluated['posts']['fusion']['macro_f1_ci_low']:.3f}" not in text


def test_what_pictures_are_read_by_is_said_stream_by_stream(run: Layout, tmp_path: Path) -> None:
    layout = copied(run, tmp_path)
    nothing = {"present": 0, "absent": 240, "unreadable": 0, "reasons": {"none": 240}, "encoder": "sound", "width": 143}
    pixels = {"present": 190, "absent": 50, "unreadable": 1, "encoder": "lite0", "width": 1280}
    pixels["reasons"] = {"none": 49, "corrupt": 1}
    words = {"present": 63, "absent": 177, "unreadable": 1, "encoder": "ocr", "width": 384}
    words["reasons"] = {"none": 49, "corrupt": 1, "no words": 127}
    image = pixels | {"encoder": "pixels+words", "width": 1664, "streams": {"pixels": pixels, "words": words}}
    video = nothing | {"streams": {"sound": nothing}}
    artifacts.write_json(layout.details("embed"), {"text": nothing, "image": image, "video": video})
    tried = {"majority": {"macro_f1": 0.2}, "stream_logreg": {"macro_f1": 0.41}}
    choice = {"taken": "stream_logreg", "why": "the best", "tried": tried, "settings": {"streams": ["pixels", "words"]}}
    artifacts.write_json(layout.details("train_image"), {"posts": {"train_rows": 7, "choice": choice}})
    text = written(layout, tmp_path / "report.html").text
    assert "image 190 50 1 none given (49), corrupt (1) pixels+words 1664" in text
    assert "image: words 63 177 1 none given (49), corrupt (1), no words (127) ocr 384" in text
    assert "video 0 240 0 none given (240) sound 143" in text
    assert "video: sound" not in text  # no post has any
    assert "Taken: stream_logreg on pixels and words, the best." in text


def test_candidates_are_shown_with_their_scores_and_why_one_was_taken(run: Layout, tmp_path: Path) -> None:
    layout = copied(run, tmp_path)
    scores = {"macro_f1": 0.4321, "macro_f1_behind": 0.0, "macro_f1_error": 0.0, "balanced_log_loss": 0.9876}
    choice = {"taken": "stacked_logreg", "why": "the simplest", "tried": {"stacked_logreg": scores, "trained": scores}}
    artifacts.write_json(layout.details("fuse"), {"posts": {"choice": choice}})
    (layout.plots("evaluate") / "fuse_history.png").unlink(missing_ok=True)
    page = written(layout, tmp_path / "report.html")
    assert "Taken: stacked_logreg, the simplest." in page.text
    assert "0.432" in page.text
    assert "0.988" in page.text
    assert "Nothing was trained by epochs: stacked_logreg is solved to its optimum." in page.text


def test_nothing_evaluated_is_one_line(run: Layout, tmp_path: Path) -> None:
    shutil.copy(run.params, tmp_path / "params.yaml")
    result = runner.invoke(app, ["report", "--project", str(tmp_path), "--out", str(tmp_path / "report.html")])
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ") and len(result.stderr.splitlines()) == 1
    assert not (tmp_path / "report.html").exists()


def test_the_command_names_the_file(run: Layout, tmp_path: Path) -> None:
    out = tmp_path / "new" / "report.html"
    result = runner.invoke(app, ["report", "--project", str(run.root), "--out", str(out)])
    assert result.exit_code == 0 and str(out) in result.stdout and out.is_file()
