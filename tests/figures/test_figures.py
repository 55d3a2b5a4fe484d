import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
import pytest
from PIL import Image

from pipeline.figures import style
from pipeline.figures.comparison import draw_comparison
from pipeline.figures.contact_sheet import Tile, draw_contact_sheet, wrapped
from pipeline.figures.evaluation import (
    draw_ablation,
    draw_learning_curve,
    draw_modality_gap,
    draw_predicted_against_actual,
    draw_reliability,
    draw_sentiment_subsets,
    draw_systems,
    draw_transfer,
)
from pipeline.figures.split import draw_split
from pipeline.figures.training import draw_confusion, draw_history

INTERVALS = {"value": 0.5, "low": 0.4, "high": 0.6}
LABELS = ["Neutral/Other", "Joy", "$anger$ \N{FIRE}"]


def picture() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 255, size=(60, 90, 3), dtype=np.uint8)


def history(path: Path) -> None:
    folds = [("final", 1, 1.0, 1.1, 0.2), ("final", 2, 0.8, 0.9, 0.4), ("fold-0", 1, 1.2, np.nan, np.nan)]
    columns = ["fold", "epoch", "train_loss", "val_loss", "val_score"]
    draw_history(path, pd.DataFrame(folds, columns=columns), "text specialist")


def history_of_losses(path: Path) -> None:
    """Of a training that no row judges."""
    rows = pd.DataFrame({"fold": "final", "epoch": [1, 2], "train_loss": [1.0, 0.8]})
    draw_history(path, rows.assign(val_loss=np.nan, val_score=np.nan), "source model, texts")


def confusion(path: Path) -> None:
    draw_confusion(path, np.array([[5, 1, 0], [2, 7, 1], [0, 0, 0]]), LABELS, "fusion, 16 test rows")


def reliability(path: Path) -> None:
    table = pd.DataFrame(
        {
            "bin_low": [0.0, 0.5],
            "bin_high": [0.5, 1.0],
            "confidence": [np.nan, 0.8],
            "accuracy": [np.nan, 0.7],
            "count": [0, 9],
        }
    )
    draw_reliability(path, table, table, "fusion")


def ablation(path: Path) -> None:
    rows = [
        {"subset": name, "kind": kind, **INTERVALS}
        for name in ("text", "text_image")
        for kind in ("masked", "retrained")
    ]
    draw_ablation(path, pd.DataFrame(rows), "what each modality brings")


def systems(path: Path) -> None:
    draw_systems(path, pd.DataFrame([{"name": name, **INTERVALS} for name in ("fusion", "majority")]), "macro-F1")


def split_bars(path: Path) -> None:
    rows = [("train", "class", "Joy", 8), ("test", "class", "Anger", 2), ("test", "modalities", "text_image", 2)]
    draw_split(path, pd.DataFrame(rows, columns=["split", "kind", "name", "rows"]), "splits")


def contact_sheet(path: Path) -> None:
    text = "me rn: \N{FIRE}\N{FIRE} costs $5 or $6 \N{THUMBS UP SIGN}\U0001f3fd \u65e5\u672c\nnobody: \x00 " + "x" * 200
    tiles = [Tile([], text, "p1"), Tile([picture()], "", "p2\nJoy"), Tile([picture()] * 4, text, text)]
    draw_contact_sheet(path, tiles)


def transfer(path: Path) -> None:
    steps = [("ridge", 0.7), ("zero_shot", np.nan), ("finetuned", 0.95)]
    rows = [{"name": name, "step": name, **INTERVALS, "resubstitution": seen} for name, seen in steps]
    draw_transfer(path, pd.DataFrame([*rows, {**rows[1], "value": -0.2, "low": -0.4, "high": 0.1}]), "unseen rows")


def learning_curve(path: Path) -> None:
    rows = [{"kind": kind, "groups": size, **INTERVALS} for kind in ("with", "without") for size in (20, 40)]
    draw_learning_curve(path, pd.DataFrame(rows), "with and without the source")


def predicted_against_actual(path: Path) -> None:
    scores = np.linspace(-2.5, 2.5, 40)
    draw_predicted_against_actual(path, pd.DataFrame({"actual": scores, "predicted": 0.5 * scores}), "40 rows")


def sentiment_subsets(path: Path) -> None:
    kinds = ("ridge", "zero_shot", "adapted", "finetuned")
    rows = [{"subset": subset, "step": step, **INTERVALS} for subset in ("text", "text_audio") for step in kinds]
    draw_sentiment_subsets(path, pd.DataFrame(rows), "what each modality brings")


def modality_gap(path: Path) -> None:
    rows = [("visual", "train", 0.74), ("visual", "val", 0.68), ("visual", "test", -0.07), ("text", "test", 0.7)]
    draw_modality_gap(path, pd.DataFrame(rows, columns=["modality", "part", "value"]), "ridge on one modality")


def comparison(path: Path) -> None:
    rows = [
        {"score": score, "experiment": name, **INTERVALS, "best": name == "b $1$"}
        for score in ("fusion, macro-F1", "ridge, r", "fine-tuned, r", "text", "video")
        for name in ("workspace", "b $1$")
    ]
    alone = {"score": "fine-tuned, MAE", "experiment": "c", "value": 1.5, "low": np.nan, "high": np.nan, "best": False}
    draw_comparison(path, pd.DataFrame([*rows, alone]), "test scores")


DRAWINGS = [
    history,
    history_of_losses,
    confusion,
    reliability,
    ablation,
    systems,
    split_bars,
    contact_sheet,
    transfer,
    learning_curve,
    predicted_against_actual,
    sentiment_subsets,
    modality_gap,
    comparison,
]


@pytest.mark.parametrize("draw", DRAWINGS, ids=lambda draw: draw.__name__)
def test_figures_are_pictures_of_the_same_bytes_each_time(draw: Callable[[Path], None], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that the font lacks is a warning
        draw(tmp_path / "once" / "a.png")
        draw(tmp_path / "again.png")
    assert (tmp_path / "once" / "a.png").read_bytes() == (tmp_path / "again.png").read_bytes()
    assert {path.name for path in tmp_path.rglob("*.*")} == {"a.png", "again.png"}
    with Image.open(tmp_path / "again.png") as image:
        assert image.format == "PNG"
        assert set(image.info) <= {"dpi"}
        assert min(image.size) > 200
        assert len(np.unique(np.asarray(image.convert("L")))) > 50


def test_a_contact_sheet_without_tiles_is_a_picture_too(tmp_path: Path):
    draw_contact_sheet(tmp_path / "empty.png", [])
    assert (tmp_path / "empty.png").stat().st_size > 0


@pytest.mark.parametrize(
    "draw", [draw_transfer, draw_learning_curve, draw_sentiment_subsets, draw_modality_gap, draw_comparison]
)
def test_a_figure_without_rows_says_so(draw: Callable[[Path, pd.DataFrame, str], None], tmp_path: Path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw(tmp_path / "empty.png", pd.DataFrame(), "nothing")
    assert (tmp_path / "empty.png").stat().st_size > 0


def test_numbers_decide_the_picture(tmp_path: Path):
    draw_confusion(tmp_path / "a.png", np.array([[5, 1], [2, 7]]), ["a", "b"], "")
    draw_confusion(tmp_path / "b.png", np.array([[5, 2], [2, 7]]), ["a", "b"], "")
    assert (tmp_path / "a.png").read_bytes() != (tmp_path / "b.png").read_bytes()


def test_signs_that_the_font_lacks_are_named():
    assert style.plain("so \N{FIRE}\N{FIRE} \N{FIRE}\nok") == "so [fire] ok"
    assert (
        style.plain("\N{THUMBS UP SIGN}\U0001f3fd \u2764\ufe0f \u65e5 a\u0000b") == "[thumbs up sign] \u2764 \u25a1 ab"
    )
    assert style.plain("$x_1$ stays") == "$x_1$ stays"


def test_long_texts_are_cut_and_short_lines_kept():
    assert wrapped("one\ntwo", 10, 3) == "one\ntwo"
    assert wrapped("aaaa bbbb cccc dddd", 9, 1) == "aaaa bbbb …"


def test_a_class_of_thousands_of_letters_leaves_room_for_the_numbers(tmp_path: Path):
    names = ["Joy", "n" * 3000]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        draw_confusion(tmp_path / "confusion.png", np.array([[5, 1], [2, 7]]), names, "fusion")
        rows = [("train", "class", name, 9) for name in names]
        draw_split(tmp_path / "split.png", pd.DataFrame(rows, columns=["split", "kind", "name", "rows"]), "posts")
    assert all(Image.open(tmp_path / f"{name}.png").width < 2000 for name in ("confusion", "split"))
    assert len(style.short(names[1])) == style.LONGEST and style.short("Joy") == "Joy"


def test_drawing_leaves_the_settings_of_the_process_alone(tmp_path: Path):
    before = {name: matplotlib.rcParams[name] for name in style.STYLE}
    confusion(tmp_path / "a.png")
    assert {name: matplotlib.rcParams[name] for name in style.STYLE} == before


def test_drawing_needs_no_backend_and_no_torch(tmp_path: Path):
    code = (
        "import sys, pathlib; from pipeline.figures.contact_sheet import draw_contact_sheet;"
        f"draw_contact_sheet(pathlib.Path({str(tmp_path / 'a.png')!r}), []);"
        "print([name for name in ('matplotlib.pyplot', 'torch') if name in sys.modules])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
