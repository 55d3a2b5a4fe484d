"""Faults planted in a track, each of which must be named first."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from pipeline.cli import app
from pipeline.core.errors import InputError
from pipeline.params import EvaluateParams, Params
from pipeline.reporting import diagnose
from pipeline.scoring.diagnostics import Finding
from pipeline.sentiment.variants import Variant
from pipeline.stages import evaluate
from tests import planted
from tests.planted import Planted

PARAMS = Params(evaluate=EvaluateParams(bootstrap=300, permutations=100))
PROTOCOLS = ("holdout", "cross_validation")


def make(root: Path, protocol: str) -> Planted:
    if protocol == "holdout":
        return planted.make(root, groups=150, words=True)
    return planted.make(root, protocol, groups=93, per_group=1)


def first(track: Planted) -> str:
    return diagnose.find(PARAMS, track.write().layout)[0].name


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_an_honest_track_has_no_finding(tmp_path: Path, protocol: str):
    assert [answer for answer in diagnose.find(PARAMS, make(tmp_path, protocol).write().layout) if answer.wrong] == []


def scored_labels_flipped(track: Planted) -> None:
    track.target.loc[track.target["split"] == "test", "score"] *= -1


def target_labels_flipped(track: Planted) -> None:
    track.change("train_adapters", np.negative, "zero_shot", "text_transfer")


def adapter_frozen(track: Planted) -> None:
    track.adapters["audio"] |= {"last_loss": 1.4, "mean_distance_after": 0.4, "spread_distance_after": 0.5}
    track.change("train_adapters", noise, "zero_shot", "adapted")


def rows_leaked(track: Planted) -> None:
    fold, row = track.folds.query("role == 'test'")[["fold", "sample_id"]].iloc[3]
    leaked = pd.DataFrame([{"fold": fold, "sample_id": row, "group_id": "elsewhere", "role": "train"}])
    track.fitted["finetune_e2e"] = pd.concat([track.fitted["finetune_e2e"], leaked])


def output_constant(track: Planted) -> None:
    track.change("finetune_e2e", lambda scores: np.full_like(scores, 0.3), "finetuned")


def columns_swapped(track: Planted) -> None:
    at = track.at("test") if len(track.at("test")) else np.arange(60, 93)
    for name in track.used:
        values = track.vectors["target"][name]
        values[at] = values[at][:, np.random.default_rng(0).permutation(values.shape[1])]
    track.change("train_adapters", noise, "adapted")
    track.change("finetune_e2e", noise, "finetuned")


def noise(scores: np.ndarray) -> np.ndarray:
    return np.random.default_rng(7).normal(size=len(scores))


@pytest.mark.parametrize(
    ("plant", "protocol", "name"),
    [
        (scored_labels_flipped, "holdout", "sign_flipped_labels"),
        (target_labels_flipped, "holdout", "sign_flipped_labels"),
        (target_labels_flipped, "cross_validation", "sign_flipped_space"),
        *((adapter_frozen, protocol, "adapter_did_not_learn") for protocol in PROTOCOLS),
        *((rows_leaked, protocol, "leaked_rows") for protocol in PROTOCOLS),
        *((output_constant, protocol, "constant_output") for protocol in PROTOCOLS),
        *((columns_swapped, protocol, "swapped_columns") for protocol in PROTOCOLS),
    ],
)
def test_a_planted_fault_is_named_first(tmp_path: Path, plant: Callable[[Planted], None], protocol: str, name: str):
    track = make(tmp_path, protocol)
    plant(track)
    assert first(track) == name


def test_a_modality_made_with_the_labels_of_all_but_the_test_rows_is_named(tmp_path: Path):
    track = make(tmp_path, "holdout")
    at = np.concatenate([track.at("train"), track.at("val")])
    generator = np.random.default_rng(0)
    values = track.vectors["target"]["audio"]
    values[:] = generator.normal(size=values.shape)
    values[at] += np.outer(track.target["score"].to_numpy()[at], generator.normal(size=values.shape[1]))
    found = diagnose.find(PARAMS, track.write().layout)[0]
    assert found.name == "labels_in_features"
    assert found.means.startswith("audio was made with the labels")


def test_the_command_prints_findings_in_order_where_evaluate_stops(tmp_path: Path):
    track = make(tmp_path, "holdout")
    rows_leaked(track)
    output_constant(track)
    track.write()
    (tmp_path / "params.yaml").write_text("evaluate:\n  bootstrap: 100\n  permutations: 100\n")
    result = CliRunner().invoke(app, ["diagnose", "--project", str(tmp_path)])
    assert result.exit_code == 0
    assert 0 < result.output.index("leaked_rows") < result.output.index("constant_output")
    assert track.folds.query("role == 'test'")["sample_id"].iloc[3] in result.output
    assert "zero_shot: adapters without target labels; adapted: adapters with target labels" in " ".join(
        result.output.split()
    )
    assert "swapped_columns" in result.output[result.output.index("found in order") :]
    with pytest.raises(InputError, match="nothing is scored"):
        evaluate.sentiment_evaluation.run(PARAMS, track.layout, tmp_path / "plots")


def test_tables_that_leak_and_do_not_fit_together_are_still_diagnosed(tmp_path: Path):
    track = make(tmp_path, "holdout")
    rows = track.predictions["finetune_e2e"]
    whole = Variant("finetuned", "text_audio").of(rows)
    rows.loc[whole.index[whole["split"] == "train"], "split"] = "test"
    found = diagnose.find(PARAMS, track.write().layout)
    assert found[0].name == "leaked_rows"
    assert "as test in final, where its role is train" in found[0].measured


def test_a_missing_file_is_one_clear_line(tmp_path: Path):
    (tmp_path / "params.yaml").write_text("seed: 1\n")
    result = CliRunner().invoke(app, ["diagnose", "--project", str(tmp_path)])
    assert result.exit_code == 1
    assert "source.parquet: not found" in result.stderr


def test_only_steps_that_were_measured_are_explained(capsys: pytest.CaptureFixture[str]):
    measured = "distance to the source: means 0.3 → 0.1; finetuned_alone 0.2"
    diagnose.show([Finding("shift", measured, "far", "more", likelihood=0.5)])
    explained = capsys.readouterr().out.partition("The steps: ")[2]
    assert explained.startswith("finetuned_alone: ")
    assert explained.count(": ") == 1
