"""Scores of rows that are at hand: those of the model's own table, with an interval, and with what each part did."""

import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.serving import bundle
from pipeline.serving.predictor import Predictor
from pipeline.serving.score_predictor import Sample, ScorePredictor
from tests import tracks
from tests.imports import ROOT
from tests.reporting.conftest import without_intervals
from tests.serving import scores
from tests.stages.test_finetune_e2e import scores as own_scores
from tests.tracks import Track


@pytest.fixture(scope="module")
def featured(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return tracks.run(tracks.make(tmp_path_factory.mktemp("featured")), *scores.STAGES)


@pytest.fixture(scope="module")
def worded(tmp_path_factory: pytest.TempPathFactory) -> Track:
    return scores.worded(tmp_path_factory.mktemp("worded"))


def predictor(track: Track) -> ScorePredictor:
    return ScorePredictor.of_project(tracks.params(track), track.layout)


def values(using: ScorePredictor, track: Track) -> list[float | None]:
    return [made.score for made in using.predict(scores.samples(track))]


@pytest.mark.parametrize("kind", ["featured", "worded"])
def test_scores_are_those_of_the_models_own_table(kind: str, request: pytest.FixtureRequest) -> None:
    track = request.getfixturevalue(kind)
    made = dict(zip(track.target["sample_id"], values(predictor(track), track), strict=True))
    known = own_scores(track).drop(track.rows("final", "val"))  # which are predicted by the models of inner folds
    assert [made[name] for name in known.index] == known.tolist()


def test_a_score_does_not_hang_on_its_company(featured: Track) -> None:
    using, given = predictor(featured), scores.samples(featured)
    assert [using.predict([sample])[0] for sample in given[:9]] == using.predict(given)[:9]


def test_the_interval_reaches_as_far_as_residuals_of_the_validation_rows(featured: Track) -> None:
    val = featured.target[featured.target["split"] == "val"].set_index("sample_id")["score"]
    off = np.sort(np.abs(own_scores(featured)[val.index] - val))
    wanted = off[math.ceil((len(off) + 1) * 0.5) - 1]
    (made,) = predictor(featured).predict(scores.samples(featured)[:1], coverage=0.5)
    assert made.score is not None
    assert (made.low, made.high) == pytest.approx((made.score - wanted, made.score + wanted))
    (unknown,) = predictor(featured).predict(scores.samples(featured)[:1], coverage=0.999)
    assert (unknown.low, unknown.high) == (None, None) and unknown.score == made.score


def test_a_part_did_what_changes_without_it(worded: Track) -> None:
    using = predictor(worded)
    at = next(at for at, row in enumerate(scores.rows(worded)) if all(row.values()))
    whole, sample = using.predict(scores.samples(worded))[at], scores.samples(worded)[at]
    used = using.model.description.used
    assert whole.score is not None and len(used) > 1
    for name in used:
        (without,) = using.predict([replace(sample, **{name: None})])
        assert without.score is not None and without.parts[name].state == "absent"
        assert whole.parts[name].change == pytest.approx(whole.score - without.score, abs=1e-6)


def test_a_part_that_is_not_used_does_nothing(featured: Track) -> None:
    model = predictor(featured).model
    using = ScorePredictor(replace(model, description=model.description.model_copy(update={"used": ("text",)})))
    unused = set(model.modalities) - {"text"}
    assert unused
    whole = using.predict(scores.samples(featured))[1]
    assert all((whole.parts[name].state, whole.parts[name].change) == ("unused", 0.0) for name in unused)


def test_nothing_to_go_by_is_said_in_place_of_a_score(featured: Track) -> None:
    given = [Sample(), scores.samples(featured)[0], Sample(audio=[math.nan] * 5)]
    made = predictor(featured).predict(given)
    assert [one.score is None for one in made] == [True, False, True]
    assert made[0].reason and made[0].low is None


@pytest.mark.parametrize(
    ("kind", "sample", "message"),
    [
        ("featured", Sample("words"), "text holds words, and the model reads 6 text features"),
        ("featured", Sample(audio=[1.0] * 4), "audio has 4 values a row, and the model reads 5"),
        ("worded", Sample([1.0] * 6), "text holds numbers, and the model reads words"),
    ],
)
def test_other_features_are_refused_in_one_line(
    kind: str, sample: Sample, message: str, request: pytest.FixtureRequest
) -> None:
    with pytest.raises(InputError, match=message) as error:
        predictor(request.getfixturevalue(kind)).predict([sample])
    assert "\n" not in str(error.value)


def test_another_encoder_in_params_is_refused(worded: Track) -> None:
    settings = tracks.params(worded)
    text = settings.embed.text.model_copy(update={"max_tokens": 9})
    other = settings.model_copy(update={"embed": settings.embed.model_copy(update={"text": text})})
    with pytest.raises(InputError, match=r"embed\.text: not what the model was trained with"):
        ScorePredictor.of_project(other, worded.layout)


# --- the bundle ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["featured", "worded"])
def test_a_bundle_gives_the_same_bytes_without_the_project(
    kind: str, request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    track = request.getfixturevalue(kind)
    expected = predictor(track).predict(scores.samples(track))
    evaluated(track)
    bundle.export(tracks.params(track), track.layout, tmp_path / "bundle", ["sentiment"])
    moved = tracks.copied(track, tmp_path / "moved").layout.root  # what the bundle needs must lie in it
    shutil.rmtree(moved)
    monkeypatch.chdir(tmp_path)
    assert ScorePredictor.load(tmp_path / "bundle").predict(scores.samples(track)) == expected


def evaluated(track: Track) -> None:
    """What `evaluate` would say, as far as a card tells it."""
    step = {"pearson": 0.5, "pearson_ci_low": 0.4, "pearson_ci_high": 0.6, "mae": 0.7}
    target = {"n": 9, "groups": 8, "protocol": "holdout", "ridge": step, "finetuned": {**step, "pearson": 0.625}}
    held = {"target": 0.9, "coverage": 0.875, "mean_width": 2.5}
    artifacts.write_json(track.layout.details("evaluate"), {"sentiment": {"target": {**target, "conformal": held}}})


def test_the_card_of_a_bundle_says_what_its_scores_are_worth(featured: Track, tmp_path: Path) -> None:
    evaluated(featured)
    bundle.export(tracks.params(featured), featured.layout, tmp_path / "bundle", ["sentiment"])
    card = (tmp_path / "bundle" / "README.md").read_text()
    assert "| finetuned | 0.625 | [0.400, 0.600] | 0.700 |" in card
    assert "Intervals for 90% held 87.5% of their scores and were 2.50 wide on average." in card
    assert bundle.tracks_of(tmp_path / "bundle") == ["sentiment"]

    path = featured.layout.details("evaluate")
    artifacts.write_json(path, without_intervals(artifacts.read_json(path)))
    bundle.export(tracks.params(featured), featured.layout, tmp_path / "few", ["sentiment"])
    assert "| finetuned | 0.625 | too few groups | 0.700 |" in (tmp_path / "few" / "README.md").read_text()


def test_a_bundle_of_scores_has_no_posts_and_says_so(featured: Track, tmp_path: Path) -> None:
    evaluated(featured)
    bundle.export(tracks.params(featured), featured.layout, tmp_path / "bundle", ["sentiment"])
    with pytest.raises(InputError, match="holds no model of posts, but one of scores"):
        Predictor.load(tmp_path / "bundle")


def test_a_changed_residual_is_noticed(featured: Track, tmp_path: Path) -> None:
    evaluated(featured)
    bundle.export(tracks.params(featured), featured.layout, tmp_path / "bundle", ["sentiment"])
    (tmp_path / "bundle" / "score.json").write_text('{"text": null, "calibration": []}')
    with pytest.raises(InputError, match="was changed"):
        ScorePredictor.load(tmp_path / "bundle")


def test_a_bundle_loads_without_dvc_and_peft(worded: Track, tmp_path: Path) -> None:
    evaluated(worded)
    bundle.export(tracks.params(worded), worded.layout, tmp_path / "bundle", ["sentiment"])
    code = (
        "import sys; sys.modules['dvc'] = sys.modules['peft'] = None\n"
        "from pipeline.serving.score_predictor import Sample, ScorePredictor\n"
        f"print(ScorePredictor.load({str(tmp_path / 'bundle')!r}).predict([Sample('so happy')])[0].score)"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True).stdout
    assert float(said) == predictor(worded).predict([Sample("so happy")])[0].score
