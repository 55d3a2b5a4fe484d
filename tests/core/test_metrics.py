"""Headlines are few, and say what the details say."""

import json
from pathlib import Path

import pytest

from pipeline.core.layout import Layout
from pipeline.core.metrics import HEADLINES, get_nested, write_metrics

EVALUATED = {
    "posts": {
        "n": 61,
        "fusion": {"macro_f1": 0.79, "macro_f1_ci_low": 0.62, "macro_f1_ci_high": 0.87, "accuracy": 0.73},
        "text": {"n": 61, "macro_f1": 0.59},
        "video": {"n": 0},
        "fusion_minus_best_baseline": {"value": -0.1, "ci_low": -0.2, "baseline": "majority"},
    },
    "sentiment": {"target": {"ridge": {"mae": 0.6}, "finetuned": {"pearson": 0.0, "mae": 0.5}}, "warnings": ["few"]},
}


def test_the_headlines_are_those_of_the_details_and_the_details_are_all(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_metrics(layout, "evaluate", EVALUATED)
    assert json.loads(layout.details("evaluate").read_text(encoding="utf-8")) == EVALUATED
    assert json.loads(layout.metrics("evaluate").read_text(encoding="utf-8")) == {
        "posts": {
            "fusion": {"macro_f1": 0.79, "macro_f1_ci_low": 0.62, "macro_f1_ci_high": 0.87},
            "text": {"macro_f1": 0.59},
            "fusion_minus_best_baseline": {"value": -0.1},
        },
        "sentiment": {"target": {"finetuned": {"pearson": 0.0, "mae": 0.5}}},
    }


def test_a_headline_may_have_another_name_than_its_detail(tmp_path: Path) -> None:
    layout = Layout(tmp_path)
    write_metrics(layout, "train_source", {"sentiment": {"features": {"out_of_fold": {"pearson": 0.54, "mae": 1.1}}}})
    assert json.loads(layout.metrics("train_source").read_text(encoding="utf-8")) == {
        "sentiment": {"out_of_fold": {"pearson": 0.54}}
    }


def test_a_stage_that_measured_nothing_leaves_both_files(tmp_path: Path) -> None:
    write_metrics(Layout(tmp_path), "train_text", {})
    assert [path.read_text(encoding="utf-8") for path in sorted(tmp_path.rglob("*.json"))] == ["{}\n", "{}\n"]


def test_a_number_that_is_no_json_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_metrics(Layout(tmp_path), "fuse", {"posts": {"val": {"macro_f1": float("nan")}}})
    assert list(tmp_path.rglob("*.json")) == []


def test_headlines_are_few() -> None:
    assert {stage for stage, names in HEADLINES.items() if len(names) > 3} == {"evaluate"}
    assert len(HEADLINES["evaluate"]) == 12
    # `dvc metrics show` has a column for each name of any stage.
    assert len({name for names in HEADLINES.values() for name in names}) <= 18


def test_a_key_below_a_number_is_absent() -> None:
    assert get_nested({"a": {"b": 1}}, "a.b") == 1
    assert get_nested({"a": {"b": 1}}, "a.b.c") is None
    assert get_nested({"a": {}}, "a.b") is None
