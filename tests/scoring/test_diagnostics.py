from dataclasses import replace

import pytest

from pipeline.scoring import diagnostics
from pipeline.scoring.columns import Shift
from pipeline.scoring.diagnostics import AdapterLosses, Evidence, PartScores, Step, diagnose


def step(pearson: float, width: float = 0.2, train: float | None = None, spread: float = 0.7) -> Step:
    return Step(pearson, pearson - width / 2, pearson + width / 2, pearson if train is None else train, spread)


FINE = Shift(columns=50, moved=1, explained=0.0, likeness=0.7, usual=0.6)
HEALTHY = Evidence(
    groups=90,
    source=step(0.6),
    steps={
        "ridge": step(0.6),
        "text_transfer": step(0.5),
        "zero_shot": step(0.1),
        "adapted": step(0.5),
        "finetuned": step(0.7),
    },
    adapters={
        "text": AdapterLosses(1.4, 0.6, 0.4, 0.1, 0.5, 0.2),
        "audio": AdapterLosses(1.2, 0.9, 0.3, 0.3, 0.4, 0.2),
    },
    parts={"text": PartScores(0.8, 0.65, 0.6, 0.5, -0.1), "audio": PartScores(0.4, 0.2, 0.1, 0.1, -0.1)},
    shifts={"source text": FINE, "target text": FINE, "target audio": FINE},
    taken={"all": 3, "ridge": 2},
)


def steps(**others: Step) -> Evidence:
    return replace(HEALTHY, steps={**HEALTHY.steps, **others})


def names(evidence: Evidence) -> list[str]:
    return [finding.name for finding in diagnose(evidence) if finding.wrong]


def test_a_healthy_run_has_no_finding_and_every_question_an_answer():
    answers = diagnose(HEALTHY)
    assert [answer.name for answer in answers if answer.wrong] == []
    assert len(answers) == len(diagnostics.QUESTIONS)
    assert all(answer.measured and answer.means and not answer.try_ for answer in answers)


LEAKED = replace(HEALTHY, leaks=["1 test rows were fitted on by finetune_e2e in the same fold (a)"])
SWAPPED = replace(HEALTHY, shifts={"target audio": replace(FINE, likeness=0.1)})
FROZEN = replace(HEALTHY, adapters={**HEALTHY.adapters, "audio": AdapterLosses(1.2, 1.19, 0.3, 0.3, 0.4, 0.4)})
CONSTANT = steps(finetuned=Step(None, None, None, None, 0.0))
LABELS = steps(ridge=step(-0.5, train=0.7), finetuned=step(-0.5, train=0.7), adapted=step(-0.4, train=0.6))
SPACE = steps(zero_shot=step(-0.4), adapted=step(-0.3))


@pytest.mark.parametrize(
    ("evidence", "first"),
    [
        (LEAKED, "leaked_rows"),
        (SWAPPED, "swapped_columns"),
        (FROZEN, "adapter_did_not_learn"),
        (CONSTANT, "constant_output"),
        (LABELS, "sign_flipped_labels"),
        (SPACE, "sign_flipped_space"),
        (steps(text_transfer=step(-0.4), zero_shot=step(-0.4)), "sign_flipped_labels"),
        (steps(adapted=step(-0.05, train=-0.4)), "sign_flipped_space"),
        (steps(finetuned=step(0.6, spread=0.1)), "clustered_predictions"),
        (replace(HEALTHY, source=step(0.1)), "source_model_weak"),
        (steps(finetuned=step(0.35, train=0.95)), "training_rows_remembered"),
        (replace(HEALTHY, groups=19), "sample_too_small"),
        (replace(HEALTHY, taken={"ridge": 4, "text_tuned": 1}), "source_not_used"),
        (steps(finetuned=step(0.34, width=0.8)), "sample_too_small"),
        (replace(HEALTHY, shifts={"target text": replace(FINE, moved=30)}), "shifted_features"),
    ],
)
def test_each_fault_is_named_first_with_what_to_try(evidence: Evidence, first: str):
    found = diagnose(evidence)[0]
    assert found.name == first
    assert found.wrong
    assert found.measured and found.means and found.try_


def test_a_sign_below_zero_is_no_turned_space_where_ridge_is_below_zero_by_the_folds_too():
    """Under cross-validation a prediction near the mean falls where a fold's scores rise."""
    by_folds = replace(step(-0.18, width=0.2), within=0.1)
    found = diagnose(steps(ridge=by_folds, adapted=step(-0.4)))
    assert {"sign_undecided"} == {finding.name for finding in found if finding.name.startswith("sign")}
    assert "while ridge is not" not in "".join(finding.means for finding in found)


def test_only_rows_that_are_ranked_are_said_to_cluster():
    assert names(steps(zero_shot=replace(step(0.5), spread_ratio=0.1))) == ["clustered_predictions"]
    turned = steps(zero_shot=replace(step(-0.5), spread_ratio=0.1))
    assert "clustered_predictions" not in names(turned)


def test_advice_against_clustering_names_a_knob_of_the_step_that_clusters():
    (of_tuned,) = (f for f in diagnose(steps(finetuned=replace(step(0.6), spread_ratio=0.1))) if f.wrong)
    (of_other,) = (f for f in diagnose(steps(zero_shot=replace(step(0.5), spread_ratio=0.1))) if f.wrong)
    assert "finetune_e2e.loss" in of_tuned.try_ and "finetune_e2e" not in of_other.try_


def test_a_leak_comes_before_all_that_it_may_explain():
    everything = replace(
        HEALTHY,
        leaks=["a"],
        shifts=SWAPPED.shifts,
        adapters=FROZEN.adapters,
        steps={**LABELS.steps, "adapted": CONSTANT.steps["finetuned"]},
    )
    assert names(everything)[:4] == ["leaked_rows", "swapped_columns", "adapter_did_not_learn", "constant_output"]
    assert "sign_flipped_labels" in names(everything)


def test_the_modality_that_was_made_with_labels_is_named():
    trap = replace(HEALTHY, parts={**HEALTHY.parts, "visual": PartScores(0.74, 0.68, -0.07, 0.05, 0.5)})
    (found,) = (finding for finding in diagnose(trap) if finding.wrong)
    assert found.name == "labels_in_features"
    assert found.means.startswith("visual was made with the labels")
    chance = replace(trap, parts={"visual": replace(trap.parts["visual"], drop_low=-0.02)})
    assert names(chance) == []
    # Where columns cannot show it themselves, another ridge among the test rows tells disorder from labels.
    mute = replace(trap, parts={"visual": replace(trap.parts["visual"], within=0.6)})
    assert names(mute) == ["swapped_columns"]
    assert names(replace(mute, shifts={"target visual": FINE})) == ["labels_in_features"]
    assert names(replace(mute, shifts={"target visual": replace(FINE, likeness=0.0)})) == ["swapped_columns"]


def test_a_prediction_that_is_timid_because_it_knows_little_does_not_cluster():
    assert names(steps(finetuned=step(0.2, spread=0.2))) == []


def test_a_ridge_shrunk_to_the_mean_is_not_turned_round():
    assert names(steps(ridge=step(-0.4, spread=0.05))) == []


@pytest.mark.parametrize(
    "adapter", [AdapterLosses(0.0, 0.0, 0.4, 0.4, 0.5, 0.5), AdapterLosses(1.0, 0.5, 0.4, 0.402, 0.5, 0.499)]
)
def test_an_adapter_without_epochs_or_without_an_effect_did_not_learn(adapter: AdapterLosses):
    found = diagnose(replace(HEALTHY, adapters={"audio": adapter}))[0]
    assert found.name == "adapter_did_not_learn"
    assert "audio" in found.means
    assert "adapter.audio.epochs" in found.try_


def test_an_adapter_that_leads_away_from_the_source_is_named():
    assert names(replace(HEALTHY, adapters={"text": AdapterLosses(1.0, 0.5, 0.3, 0.8, 0.5, 0.4)})) == [
        "adapter_far_from_source"
    ]


def test_the_first_answer_says_how_sure_the_sign_is():
    assert "r -0.50 [-0.60, -0.40]" in diagnose(LABELS)[0].measured


def test_a_correlation_that_is_negative_over_the_folds_and_not_within_them_turns_nothing_round():
    turned = replace(step(-0.4, train=0.6), within=-0.3)
    assert names(steps(ridge=turned)) == ["sign_flipped_labels"]
    assert names(steps(ridge=replace(turned, within=0.05))) == []


@pytest.mark.parametrize(
    ("of", "found", "fine"),
    [
        ("source_model_weak", replace(HEALTHY, source=step(0.19)), replace(HEALTHY, source=step(0.21))),
        ("training_rows_remembered", steps(finetuned=step(0.6, train=0.91)), steps(finetuned=step(0.6, train=0.89))),
        ("sample_too_small", replace(HEALTHY, groups=29), replace(HEALTHY, groups=30)),
        ("sample_too_small", steps(finetuned=step(0.7, width=0.52)), steps(finetuned=step(0.7, width=0.48))),
        ("clustered_predictions", steps(finetuned=step(0.4, spread=0.19)), steps(finetuned=step(0.4, spread=0.21))),
        ("clustered_predictions", steps(finetuned=step(0.9, spread=0.24)), steps(finetuned=step(0.9, spread=0.26))),
    ],
)
def test_what_lies_on_either_side_of_a_limit(of: str, found: Evidence, fine: Evidence):
    assert (names(found), names(fine)) == ([of], [])
