"""From what was measured to what is wrong: the questions that a disappointing, or a too good, transfer raises.

Every question is answered, also where nothing is wrong. What is wrong comes first, in the order of how likely it is to
be the cause: a leak makes every other number worthless; columns out of place, an adapter that did not learn or a
constant output explain a bad correlation, which explains nothing itself. Nothing is chosen here and nothing repaired: a
sign that was found on the scored rows must not be turned by them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from pipeline.scoring.columns import Shift

TRANSFERRED = ("zero_shot", "adapted", "finetuned")
"""The steps that rest on the source model, in their order."""

WITHOUT_SOURCE = ("ridge", "text_tuned")
"""Candidates of fine-tuning that learn from the target alone."""

CONSTANT, SHRUNK, CLUSTERED = 0.02, 0.1, 0.25
"""Spread of the predictions over that of the scores."""

LEARNT = 0.02
"""Share by which an adapter's loss must have fallen, and by which its features must have moved."""

FARTHER, FAR = 1.25, 0.5
"""How far adapted features may go from the source's: times the distance before, and in the source's own spreads."""

WEAK_SOURCE = 0.2
WIDE, FEW_GROUPS = 0.5, 30
REMEMBERED = 0.2
"""How far the score on training rows may lie above the upper end of the interval on unseen rows."""

DROP, KNOWN = 0.25, 0.3
"""A modality's fall from validation to test rows that counts, and the correlation from which a fall is one."""

PERMUTED, UNLIKE, STRUCTURE = 0.6, 0.75, 0.2
"""Share of a shift that changing places must explain; share of the usual likeness that is too little; and how alike
random parts must be for likeness to be informative."""

SHIFTED = 0.2
"""Share of the columns with another mean that is worth a word where changing places does not explain it."""


@dataclass(frozen=True)
class Step:
    """Pearson's r of one step on rows nobody saw, with its interval, on training rows, and the predictions' spread.

    ``within`` is the mean of the folds' own r, under cross-validation. None is what is undefined, such as the
    correlation of a constant.
    """

    pearson: float | None
    low: float | None
    high: float | None
    train: float | None = None
    spread_ratio: float | None = None
    within: float | None = None


@dataclass(frozen=True)
class AdapterLosses:
    """An adapter's losses, and how far means and spreads of its columns lie from the source's, in source spreads."""

    first_loss: float
    last_loss: float
    mean_distance_before: float
    mean_distance_after: float
    spread_distance_before: float
    spread_distance_after: float


@dataclass(frozen=True)
class PartScores:
    """Pearson's r of ridge on one modality, fitted on training rows: on these, on validation and on test rows.

    ``within`` is that of another ridge, cross-validated among the test rows alone; ``drop_low`` the lower end of the
    interval of validation minus test.
    """

    train: float | None
    val: float | None
    test: float | None
    within: float | None
    drop_low: float | None


@dataclass(frozen=True)
class Evidence:
    """What was measured; keys of ``adapters``, ``parts`` and ``shifts`` are modalities, or ``corpus modality``.

    ``taken`` are candidates of fine-tuning, and how many folds took each.
    """

    groups: int
    leaks: Sequence[str] = ()
    taken: Mapping[str, int] = field(default_factory=dict)
    source: Step | None = None
    steps: Mapping[str, Step] = field(default_factory=dict)
    adapters: Mapping[str, AdapterLosses] = field(default_factory=dict)
    parts: Mapping[str, PartScores] = field(default_factory=dict)
    shifts: Mapping[str, Shift] = field(default_factory=dict)


@dataclass(frozen=True)
class Finding:
    """``likelihood``, 0 to 1, orders what is wrong; at 0 nothing is, and there is nothing to ``try_``."""

    name: str
    measured: str
    means: str
    try_: str = ""
    likelihood: float = 0.0

    @property
    def wrong(self) -> bool:
        return self.likelihood > 0


def diagnose(evidence: Evidence) -> list[Finding]:
    """What is wrong, the likeliest cause first, then the answers to the questions that found nothing wrong."""
    answers = [finding for question in QUESTIONS for finding in question(evidence)]
    return sorted(answers, key=lambda finding: -finding.likelihood)


# --- questions -------------------------------------------------------------------------------------------------------


def _leaks(evidence: Evidence) -> list[Finding]:
    """Are training rows being scored?"""
    if not evidence.leaks:
        return [
            Finding("leaked_rows", "no row, group or near-duplicate is on both sides", "only unseen rows are scored")
        ]
    return [
        Finding(
            "leaked_rows",
            "; ".join(evidence.leaks),
            "rows are scored that a model behind the score has seen: every score is too good, and none is reported",
            "take these rows out of one side, keep groups together, then `dvc repro`",
            1.0,
        )
    ]


def _columns(evidence: Evidence) -> list[Finding]:
    """Do columns of the scored rows stand where they stood in training?"""
    findings = []
    for name, shift in evidence.shifts.items():
        measured = (
            f"{name}: {shift.moved} of {shift.columns} columns have another mean in one part of the rows, "
            f"{shift.explained:.0%} of it explained by other places; its columns go together by {shift.likeness:.2f} "
            f"as elsewhere, those of random parts by at least {shift.usual:.2f}"
        )
        if _swapped(shift):
            means = "columns of that part have changed places: a model reads one feature where it learnt another"
            findings.append(Finding("swapped_columns", measured, means, _reorder(name), 0.97))
        elif shift.moved >= max(2, SHIFTED * shift.columns):
            means = "features of that part have another scale than the others, or come from another extractor"
            advice = f"make the {name} features of all rows with one extractor and one normalisation"
            findings.append(Finding("shifted_features", measured, means, advice, 0.45))
    if not findings:
        findings.append(
            Finding("swapped_columns", _names(evidence.shifts), "columns stand where they stood in training")
        )
    return findings


def disorder(shift: Shift) -> float:
    """How strongly columns seem to have changed places: above 1 they have.

    Either means lie apart and other places explain it, or columns no longer go together as they did.
    """
    permuted = shift.explained / PERMUTED if shift.moved >= 2 else 0.0
    unlike = UNLIKE * shift.usual / max(shift.likeness, 1e-6) if shift.usual >= STRUCTURE else 0.0
    return max(permuted, unlike)


def _swapped(shift: Shift) -> bool:
    return disorder(shift) > 1


def _relations(evidence: Evidence) -> list[Finding]:
    """Does a modality predict scored rows as it predicts the others, or were its features made with the labels?"""
    ridge = evidence.steps.get("ridge")
    if ridge is not None and _negative(ridge):
        return []  # turned round, not gone: the question of the sign answers it
    findings = []
    for name, part in evidence.parts.items():
        shift = evidence.shifts.get(f"target {name}")
        if part.val is None or part.test is None or not _falls(part) or (shift is not None and _swapped(shift)):
            continue
        measured = (
            f"{name} alone: r {_number(part.train)} on training, {part.val:.2f} on validation, {part.test:.2f} on test "
            f"rows (a fall of at least {_number(part.drop_low)}); among the test rows alone {_number(part.within)}"
        )
        # Columns without structure cannot show by themselves whether they changed places.
        mute = shift is None or shift.usual < STRUCTURE
        if mute and part.within is not None and part.within >= max(part.val / 2, part.test + DROP):
            means = f"{name} speaks of sentiment in the test rows too, but by other columns than in training"
            findings.append(Finding("swapped_columns", measured, means, _reorder(name), 0.9))
        else:
            means = f"{name} was made with the labels of training and validation rows: it promises what is not there"
            advice = f"leave {name} out (target.modalities) or make it without labels; believe no validation figure"
            findings.append(Finding("labels_in_features", measured, means, advice, 0.8))
    known = {name: part for name, part in evidence.parts.items() if part.val is not None}
    if not findings and known:
        measured = ", ".join(f"{name} {_number(part.val)} → {_number(part.test)}" for name, part in known.items())
        means = "no modality falls from validation to test rows by more than its columns and chance explain"
        findings.append(Finding("labels_in_features", f"r on validation → test rows: {measured}", means))
    return findings


def _falls(part: PartScores) -> bool:
    """From a validation figure worth the name, far, and by more than chance."""
    if part.val is None or part.test is None or part.drop_low is None:
        return False
    return part.val >= KNOWN and part.val - part.test >= DROP and part.drop_low > 0


def _reorder(name: str) -> str:
    return f"compare how the {name} features of both parts were made and joined; give columns one order"


def _adapters(evidence: Evidence) -> list[Finding]:
    """Which modality's adapter did not learn, and how far are its features from the source's?"""
    findings, fine = [], []
    for name, adapter in evidence.adapters.items():
        losses = f"{name}: loss {adapter.first_loss:.4g} → {adapter.last_loss:.4g}"
        before = (adapter.mean_distance_before, adapter.spread_distance_before)
        after = (adapter.mean_distance_after, adapter.spread_distance_after)
        distances = (
            f"distance to the source: means {before[0]:.3g} → {after[0]:.3g}, spreads {before[1]:.3g} → {after[1]:.3g}"
        )
        still = all(abs(b - a) <= LEARNT * max(abs(b), abs(a)) for b, a in zip(before, after, strict=True))
        if adapter.last_loss >= (1 - LEARNT) * adapter.first_loss or still:
            means = f"the {name} adapter did not learn: the source model sees features that mean nothing to it"
            advice = f"see that it is not frozen: more adapter.{name}.epochs, or a larger adapter.{name}.learning_rate"
            findings.append(Finding("adapter_did_not_learn", f"{losses}; {distances}", means, advice, 0.95))
        elif after[0] > max(FAR, FARTHER * before[0]):
            means = f"adapted {name} features lie farther from the source's than before"
            advice = f"a smaller adapter.{name}.learning_rate, another adapter.match, or a smaller adapter.label_weight"
            findings.append(Finding("adapter_far_from_source", f"{losses}; {distances}", means, advice, 0.4))
        else:
            fine.append(f"{losses}; {distances}")
    if fine:
        findings.append(
            Finding("adapter_did_not_learn", "; ".join(fine), "losses fell, and no features went far from the source's")
        )
    return findings


def _spread(evidence: Evidence) -> list[Finding]:
    """Do predictions cluster?"""
    known = {name: step for name in TRANSFERRED if (step := evidence.steps.get(name)) and step.spread_ratio is not None}
    constant = [name for name, step in known.items() if step.pearson is None or _ratio(step) < CONSTANT]
    # A calibrated prediction that correlates by r spreads r times as wide: timid is less than half of that.
    timid = [
        name
        for name, step in known.items()
        if name not in constant and _ratio(step) < min(CLUSTERED, (step.pearson or 0.0) / 2)
    ]
    ratios = ", ".join(f"{name} {_ratio(step):.3f} (r {_number(step.pearson)})" for name, step in known.items())
    measured = f"spread of predictions over that of scores: {ratios}"
    findings = []
    if constant:
        means = f"{', '.join(constant)}: every row gets the same score, nothing of the input reaches the output"
        advice = "a smaller learning rate; look for a collapse in the loss curves, and for features that are all absent"
        likelihood = 0.94 if set(constant) - {"zero_shot"} else 0.75
        findings.append(Finding("constant_output", measured, means, advice, likelihood))
    if timid:
        means = f"{', '.join(timid)}: rows are ranked, but scores cluster near one value, as far off as the mean"
        tuned = "finetune_e2e.loss: ccc, which punishes predictions that spread too little"
        advice = tuned if "finetuned" in timid else "only finetuned is scaled to the target's scores: read that one"
        findings.append(Finding("clustered_predictions", measured, means, advice, 0.5))
    if known and not findings:
        means = "predictions spread as far as their correlation warrants"
        findings.append(Finding("clustered_predictions", measured, means))
    return findings


def _ratio(step: Step) -> float:
    return step.spread_ratio or 0.0


def _sign(evidence: Evidence) -> list[Finding]:
    """Is the sign flipped, and how sure is it?"""
    steps = evidence.steps
    shown = [name for name in ("ridge", "text_transfer", *TRANSFERRED) if name in steps]
    measured = "; ".join(f"{name} {_correlation(steps[name])}" for name in shown)
    negative = [name for name in shown if _negative(steps[name])]
    turned = [name for name in shown if (train := steps[name].train) is not None and train < -REMEMBERED]
    if "ridge" in negative:
        train = steps["ridge"].train
        measured += f"; ridge on its own training rows {_number(train)}"
        means = (
            "even ridge on the target alone is turned round: the labels of the scored rows are flipped against training"
        )
        advice = "compare the score's direction in both parts of the table; never turn predictions round by test rows"
        return [Finding("sign_flipped_labels", measured, means, advice, 0.92)]
    if "text_transfer" in negative:
        means = "words cannot be turned round, yet the source's text model is: one corpus has its labels the other way"
        advice = "compare what high scores say in the source and in the target; turn one corpus round before `split`"
        return [Finding("sign_flipped_labels", measured, means, advice, 0.91)]
    wrong = [name for name in TRANSFERRED if name in negative or name in turned]
    if wrong:
        how = "interval below zero" if set(wrong) & set(negative) else "negative on training rows"
        ridge = steps.get("ridge")
        if ridge is not None and ridge.high is not None and ridge.high < 0:
            why = "ridge is, too, but by the folds' means or as good as constant: these rows settle no direction"
            advice = "more labelled rows with unlike scores; until then no correlation here says anything"
            return [Finding("sign_undecided", measured, f"{', '.join(wrong)}: {how}; {why}", advice, 0.5)]
        means = (
            f"{', '.join(wrong)}: {how}, while ridge is not: the target's space is turned round against the source's, "
            "which features alone do not settle, or one corpus has its labels the other way"
        )
        if wrong == ["zero_shot"]:
            means += "; adapters that saw training labels have turned it back"
            advice = "compare both corpora's labels; if they agree, another adapter.match, and no use of zero_shot"
            return [Finding("sign_flipped_space", measured, means, advice, 0.7)]
        advice = "adapter.label_weight above 0 (training labels settle the direction); compare both corpora's labels"
        return [Finding("sign_flipped_space", measured, means, advice, 0.9)]
    return [Finding("sign_flipped_space", measured, "no step has an interval below zero")] if shown else []


def _source(evidence: Evidence) -> list[Finding]:
    """Does the source model work on the source?"""
    source = evidence.source
    if source is None:
        return []
    measured = f"source model on unseen source rows: {_correlation(source)}"
    chance = source.low is not None and source.low <= 0
    if source.pearson is None or source.pearson < WEAK_SOURCE or chance:
        means = "the source model does not work where it was trained: there is nothing to transfer"
        advice = "mend train_source first: labels, features, candidates; then `dvc repro`"
        return [Finding("source_model_weak", measured, means, advice, 0.78)]
    return [Finding("source_model_weak", measured, "the source model works on the source")]


def _unused(evidence: Evidence) -> list[Finding]:
    """Does what was taken learn from the source at all?"""
    if not evidence.taken:
        return []
    total = sum(evidence.taken.values())
    alone = sum(count for name, count in evidence.taken.items() if name in WITHOUT_SOURCE)
    measured = "finetuned is " + ", ".join(f"{name} in {count} of {total}" for name, count in evidence.taken.items())
    if alone == total:
        means = "the model learns from the target alone: inner folds found nothing that the source adds to it"
        advice = "a source nearer to the target, words for source.texts, or fewer labelled rows, where a source counts"
        return [Finding("source_not_used", measured, means, advice, 0.3)]
    return [Finding("source_not_used", measured, "what the source knows is part of the model")]


def _remembered(evidence: Evidence) -> list[Finding]:
    """How much better do training rows look?"""
    step = evidence.steps.get("finetuned")
    if step is None or step.train is None:
        return []
    measured = f"finetuned: r {step.train:.2f} on the rows it was trained on, {_correlation(step)} on unseen rows"
    if step.high is not None and step.train - step.high > REMEMBERED:
        means = "the model remembers its training rows: a figure that includes them is inflated"
        advice = "report unseen rows only; raise finetune_e2e.l2_sp, or lower epochs (tuned.epochs of a text encoder)"
        return [Finding("training_rows_remembered", measured, means, advice, 0.35)]
    return [Finding("training_rows_remembered", measured, "training rows look no better than such a model must")]


def _size(evidence: Evidence) -> list[Finding]:
    """Is the sample too small to tell?"""
    step = evidence.steps.get("finetuned") or evidence.steps.get("ridge")
    wide = step.high - step.low if step is not None and step.high is not None and step.low is not None else None
    measured = f"{evidence.groups} independent groups" + (
        "" if wide is None else f"; the interval of r is {wide:.2f} wide"
    )
    if evidence.groups < FEW_GROUPS or (wide is not None and wide > WIDE):
        means = "the sample is too small to tell a good model from a lucky one"
        advice = "target.protocol: cross_validation, which scores every labelled row; more labelled groups"
        return [Finding("sample_too_small", measured, means, advice, 0.2)]
    return [Finding("sample_too_small", measured, "the sample is large enough for what the intervals say")]


QUESTIONS: tuple[Callable[[Evidence], list[Finding]], ...] = (
    _leaks, _columns, _relations, _adapters, _spread, _sign, _source, _unused, _remembered, _size,
)  # fmt: skip


# --- words -----------------------------------------------------------------------------------------------------------


def _negative(step: Step) -> bool:
    """Below zero by more than chance, and not for being all but constant or by the folds alone.

    The mean of the other folds' scores falls where a fold's rise, so in a cross-validation a prediction that is shrunk
    to that mean correlates negatively over all folds, not within them, which is no evidence of a reversed direction.
    """
    constant = step.spread_ratio is not None and step.spread_ratio < SHRUNK
    by_folds = step.within is not None and step.within >= 0
    return step.high is not None and step.high < 0 and not constant and not by_folds


def _number(value: float | None) -> str:
    return "undefined" if value is None else f"{value:.2f}"


def _correlation(step: Step) -> str:
    if step.pearson is None:
        return "r undefined"
    return f"r {step.pearson:.2f}" + ("" if step.low is None else f" [{step.low:.2f}, {step.high:.2f}]")


def _names(shifts: Mapping[str, Shift]) -> str:
    if not shifts:
        return "too few groups, or no separate part of the corpus, to compare columns"
    return "; ".join(
        f"{name}: {shift.moved} of {shift.columns} columns have another mean, likeness {shift.likeness:.2f} "
        f"(random parts at least {shift.usual:.2f})"
        for name, shift in shifts.items()
    )
