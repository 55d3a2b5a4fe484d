"""`errors` as it is typed: what is listed, in which order, with which flags."""

from pathlib import Path
from unittest import mock

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from PIL import Image
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.params import Params, PostsParams
from pipeline.reporting import gallery
from tests.reporting.conftest import Page

runner = CliRunner()


def invoke(run: Layout, out: Path, *given: str):
    return runner.invoke(app, ["errors", "--project", str(run.root), "--out", str(out), *given])


def of(run: Layout, label: str, predicted: str) -> list[str]:
    errors = pd.read_csv(run.plots("evaluate") / "errors.csv")
    return errors[(errors["label"] == label) & (errors["prediction"] == predicted)]["id"].tolist()


def test_table_and_gallery_list_the_same_errors_in_order(run: Layout, tmp_path: Path) -> None:
    result = invoke(run, tmp_path / "errors.html", "--label", "anger", "--predicted", "joy")
    wanted = of(run, "anger", "joy")
    assert len(wanted) > 1
    lines = result.stdout.splitlines()
    assert lines[0] == f"Test posts labelled anger taken for joy: {len(wanted)}"
    assert [line.split()[0] for line in lines if line.startswith("p")] == wanted
    page = Page(tmp_path / "errors.html")
    at = [page.text.index(f"post {name}") for name in wanted]
    assert at == sorted(at)
    assert page.text.count("anger, taken for joy") == len(wanted)


def test_a_limit_says_how_many_there_are(run: Layout, tmp_path: Path) -> None:
    result = invoke(run, tmp_path / "errors.html", "--limit", "1")
    total = len(pd.read_csv(run.plots("evaluate") / "errors.csv"))
    assert result.stdout.splitlines()[0] == f"Test posts taken for another class: 1 of {total}"


def test_a_text_cannot_command_the_terminal(run: Layout, tmp_path: Path) -> None:
    result = invoke(run, tmp_path / "errors.html")
    assert "<script>" in result.stdout and "\x1b" not in result.stdout
    assert "script" not in {tag for tag, _ in Page(tmp_path / "errors.html").tags}


@pytest.mark.parametrize("option", ["--label", "--predicted"])
def test_an_unknown_label_names_the_known(run: Layout, tmp_path: Path, option: str) -> None:
    result = invoke(run, tmp_path / "errors.html", option, "bliss")
    assert result.exit_code == 1
    assert result.stderr == f"error: {option}: 'bliss' is no label of this run, which knows anger, joy, sadness\n"


def test_none_is_said(run: Layout, tmp_path: Path) -> None:
    result = invoke(run, tmp_path / "errors.html", "--label", "joy", "--predicted", "joy")
    assert (result.exit_code, result.stdout) == (0, "Test posts labelled joy taken for joy: 0\n")
    assert "There is none." in Page(tmp_path / "errors.html").text


def test_open_starts_the_browser(run: Layout, tmp_path: Path) -> None:
    out = tmp_path / "errors.html"
    with mock.patch("webbrowser.open", return_value=True) as opened:
        assert invoke(run, out, "--open").exit_code == 0
    opened.assert_called_once_with(out.as_uri())
    with mock.patch("webbrowser.open", return_value=False):
        result = invoke(run, out, "--open")
    assert result.exit_code == 1 and "by hand" in result.stderr


def test_suspects_come_from_training_rows(run: Layout, tmp_path: Path) -> None:
    result = invoke(run, tmp_path / "errors.html", "--suspects", "--label", "joy")
    posts = artifacts.read_posts(run.table("posts")).set_index("sample_id")
    ids = [line.split()[0] for line in result.stdout.splitlines() if line.startswith("p")]
    assert ids
    assert set(posts.loc[ids, "split"]) == {"train"} and set(posts.loc[ids, "label"]) == {"joy"}


def test_copies_are_flagged_with_their_labels(tmp_path: Path) -> None:
    layout, media = Layout(tmp_path), tmp_path / "media"
    media.mkdir()
    noise = np.random.default_rng(0).integers(0, 255, (9, 9, 3), dtype=np.uint8)
    for name in ("1.png", "2.png"):
        Image.fromarray(noise).resize((200, 200)).save(media / name)
    table = pd.DataFrame(
        {
            "sample_id": ["a", "b", "c", "d"],
            "group_id": ["one", "one", "one", "two"],
            "split": "test",
            "label": ["joy", "anger", "joy", "joy"],
            "text": ["So very good!!", "so very GOOD", "else", "other"],
            "image_path": ["1.png", None, "2.png", None],
            "video_path": None,
        }
    )
    table = pa.Table.from_pandas(table, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)
    rows = [{"id": name, "label": "x", "other": "y", "strength": 0.5, "reasons": ()} for name in "abd"]
    cards = gallery.cards(rows, Params(posts=PostsParams(media="media")), layout)
    assert [card.flags for card in cards] == [
        ("same text as b (anger)", "same picture as c (joy)"),
        ("same text as a (joy)",),
        (),
    ]
    assert [card.family for card in cards] == [3, 3, 1]
    assert [len(card.pictures) for card in cards] == [1, 0, 0]
