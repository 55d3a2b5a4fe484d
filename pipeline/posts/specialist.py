"""The one implementation behind `train_text`, `train_image` and `train_video`.

A specialist sees only the posts that have its modality. Candidates, from the class shares to an encoder that learns,
are fitted on grouped inner folds of the training and validation rows; the simplest that is not clearly behind the best
is taken, calibrated on the rows that the folds left unseen, and fitted again on all of them to predict the test rows
(fold ``final``). So `fuse` learns only from predictions of models that had not seen the row.

Of many rows (``specialist.inner_rows``) the validation rows are the one inner fold: models are fitted once, on the
training rows, and only the one that is taken is cross-fitted, where there is something to fuse.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.artifacts import Predictions
from pipeline.core.errors import InputError
from pipeline.core.fitted import fitted_rows, write_fitted
from pipeline.core.layout import Layout
from pipeline.core.metrics import write_metrics
from pipeline.core.schemas import FINAL, LEARNING, Candidate, Modality
from pipeline.encoders import tfidf
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.params import Params
from pipeline.posts.candidates import LINEAR, CandidateResult, FittedSpecialist, fit_linear, try_linear
from pipeline.posts.descriptions import OF_WORDS, TUNED, SpecialistDescription, SpecialistNet
from pipeline.posts.folds import NamedFold, all_fitted_rows, predicted_in
from pipeline.posts.out_of_fold import OutOfFold
from pipeline.posts.specialist_rows import SpecialistRows, read_rows, too_few
from pipeline.posts.trained_candidates import fit_trained, try_trained
from pipeline.scoring import selection
from pipeline.scoring.calibration import identity_calibration
from pipeline.scoring.selection import Selection
from pipeline.training.checkpoint import write_model
from pipeline.training.device import pick
from pipeline.training.loop import HISTORY

FEW = 500
"""Training texts. Of fewer, an encoder is not tuned where the words say as much as its vectors; where it is, it is
taken unless it is clearly behind: it gains most by each further row, and inner folds lack a fourth of these.
"""

FEW_SAY = f"of fewer than {FEW} texts it learns only where the encoder's vectors say more than TF-IDF does"


def train(modality: Modality, params: Params, layout: Layout) -> None:
    """Chooses, fits, cross-fits and writes the specialist of one modality."""
    stage = f"train_{modality}"
    corpus = read_rows(modality, params, layout)
    if why := too_few(corpus):
        _write_absent(stage, corpus, why, layout)
        return
    block = params.of_specialist(modality)
    folds = corpus.grouping.inner(block.folds, block.inner_rows)
    tried: list[CandidateResult] = []
    untried: list[str] = []
    for name in _names(corpus, params):
        if name in TUNED and not _worth_tuning(tried, corpus, folds):
            untried.append(name)
        elif (result := _try(name, corpus, folds, params, layout)) is not None:
            tried.append(result)
    if not tried:
        raise InputError(f"{stage}.candidates: the texts have no words that two of them share; add `logreg`")
    choice = _choose(tried, corpus, folds)
    outcome = _finish(tried[choice.taken], choice, corpus, folds, params, layout)
    _write(stage, corpus, outcome, params, layout)
    _report(stage, corpus, outcome, untried, layout)
    corpus.finished.clear()


@dataclass(frozen=True)
class SpecialistOutcome:
    """What was taken, ready to be written.

    Attributes:
        compared: positions of the rows that candidates were compared on.
        folds: every fold that a model was fitted for, the final one last.
        logits: float32 [N, K], of all rows that a fold left unseen.
    """

    taken: CandidateResult
    choice: Selection
    compared: np.ndarray
    folds: list[NamedFold]
    logits: np.ndarray
    final: FittedSpecialist


def _names(corpus: SpecialistRows, params: Params) -> list[Candidate]:
    """The candidates that can be tried on this corpus. Raises InputError when none can."""
    block = params.of_specialist(corpus.modality)
    bearable = corpus.modality == "text" or pick(params.device).type != "cpu"
    enough = len(corpus.grouping.part("train")) >= block.tuned_rows and bearable
    names: list[Candidate] = [name for name in block.candidates if _can(name, corpus)]
    candidates: list[Candidate] = [name for name in names if enough or name not in TUNED] or names
    if not candidates:
        listed = ", ".join(block.candidates)
        raise InputError(f"train_{corpus.modality}.candidates: {listed}: need words or streams; add `logreg`")
    return candidates


def _worth_tuning(tried: Sequence[CandidateResult], corpus: SpecialistRows, folds: list[NamedFold]) -> bool:
    """Whether minutes may be spent on an encoder: of ``FEW`` texts only where its vectors say more than the words."""
    frozen = [candidate for candidate in tried if candidate.name in ("logreg", "tfidf_logreg")]
    if len(frozen) < 2 or not _is_of_few_texts(corpus):
        return True
    losses = {name: scores["balanced_log_loss"] for name, scores in _choose(frozen, corpus, folds).tried.items()}
    return losses["logreg"] < losses["tfidf_logreg"]


def _choose(tried: Sequence[CandidateResult], corpus: SpecialistRows, folds: list[NamedFold]) -> Selection:
    judged = corpus.grouping.judged(folds)
    return selection.choose(
        [candidate.name for candidate in tried],
        [candidate.logits[judged] for candidate in tried],
        corpus.codes.numpy()[judged],
        corpus.grouping.groups[judged],
        "full" if _is_of_few_texts(corpus) else None,
    )


def _is_of_few_texts(corpus: SpecialistRows) -> bool:
    return corpus.modality == "text" and len(corpus.grouping.part("train")) < FEW


def _can(name: Candidate, corpus: SpecialistRows) -> bool:
    """Whether the corpus has what the candidate learns from: words, several streams, or pixels."""
    if name == "stream_logreg":
        return len(corpus.streams) > 1
    if name in TUNED and corpus.streams:
        return LEARNING[corpus.modality] in corpus.streams
    return corpus.modality == "text" or name not in OF_WORDS


def _try(
    name: Candidate, corpus: SpecialistRows, folds: list[NamedFold], params: Params, layout: Layout
) -> CandidateResult | None:
    return try_linear(name, corpus, folds) if name in LINEAR else try_trained(name, corpus, folds, params, layout)


def _fit(
    taken: CandidateResult, corpus: SpecialistRows, fold: NamedFold, params: Params, layout: Layout
) -> FittedSpecialist:
    if taken.name in LINEAR:
        return fit_linear(taken.name, corpus, fold, taken.settings)
    return fit_trained(taken.name, corpus, fold, params, layout, taken.settings["epochs"])


def _finish(
    taken: CandidateResult,
    choice: Selection,
    corpus: SpecialistRows,
    folds: list[NamedFold],
    params: Params,
    layout: Layout,
) -> SpecialistOutcome:
    """Inner folds are followed by a fit on all of their rows.

    Where there was only one, which is final already, the training rows are cross-fitted; not in a corpus of one
    modality, where nobody would ask for it.
    """
    block, logits, compared = (
        params.of_specialist(corpus.modality),
        taken.logits.copy(),
        corpus.grouping.compared(folds),
    )
    count = block.tuned.folds if taken.name in TUNED else block.folds
    if FINAL in taken.fitted:
        more = [] if corpus.alone else corpus.grouping.cross(corpus.grouping.part("train"), count)
        for fold in more:
            logits[fold.held_out] = _fit(taken, corpus, fold, params, layout).logits
        return SpecialistOutcome(taken, choice, compared, [*more, *folds], logits, taken.fitted[FINAL])
    whole = corpus.grouping.whole()
    final = _fit(taken, corpus, whole, params, layout)
    logits[whole.held_out] = final.logits
    # A candidate whose encoder learns has had folds of its own; these are the same again.
    folds = corpus.grouping.cross(whole.train, count)
    return SpecialistOutcome(taken, choice, compared, [*folds, whole], logits, final)


def _write(stage: str, corpus: SpecialistRows, outcome: SpecialistOutcome, params: Params, layout: Layout) -> None:
    taken, final, block = outcome.taken, outcome.final, params.of_specialist(corpus.modality)
    made_by = predicted_in(outcome.folds, len(corpus.posts))
    predicted = np.flatnonzero(made_by.notna())
    keys = corpus.posts[["sample_id", "split"]].assign(fold=made_by, kind="specialist", subset=corpus.modality)
    hidden, dropout = (0, 0.0) if taken.name in LINEAR else (block.hidden, block.dropout)
    classifier = final.net.classifier if isinstance(final.net, TunedSpecialist) else final.net
    assert isinstance(classifier, Specialist)
    width = len(classifier.mean)
    with artifacts.replacing_folder(layout.model(stage)) as folder:
        artifacts.write_predictions(
            folder / "predictions.parquet", Predictions(keys.iloc[predicted], outcome.logits[predicted])
        )
        if final.words is not None:
            tfidf.write(final.words, folder)
        description = SpecialistDescription(
            stage=stage,
            candidate=taken.name,
            labels=corpus.labels,
            modalities=(corpus.modality,),
            net=SpecialistNet(width=width, hidden=hidden, dropout=dropout),
            lora_rank=block.tuned.lora_rank if taken.name == "lora" else None,
            encoder=corpus.embeddings.encoder,
            seed=params.seed,
            best_epoch=final.best_epoch,
            calibration=outcome.choice.calibration,
            fitted=write_fitted(folder, all_fitted_rows(corpus.posts, outcome.folds)),
        )
        write_model(folder, final.net, description)


def _report(
    stage: str, corpus: SpecialistRows, outcome: SpecialistOutcome, untried: Sequence[str], layout: Layout
) -> None:
    """What was chosen and why, and how it does on the rows that it was compared on; the test rows are left to
    `evaluate`.
    """
    taken, choice = outcome.taken, outcome.choice
    at = outcome.compared
    out_of_fold = OutOfFold.of(outcome.logits[at], corpus.codes.numpy()[at], corpus.labels, choice.calibration)
    chosen: dict[str, Any] = choice.report() | {"settings": taken.settings}
    if untried:
        chosen["why"] += f"; {', '.join(untried)} not tried: {FEW_SAY}"
    metrics: dict[str, Any] = {
        "train_rows": len(outcome.folds[-1].train),
        "folds": len(outcome.folds) - 1,
        "choice": chosen,
        "out_of_fold": out_of_fold.metrics(),
    }
    write_metrics(layout, stage, {"posts": metrics})

    fitted = {**taken.fitted, FINAL: outcome.final}
    history = pd.DataFrame(
        [{"fold": fold, **line} for fold, specialist in fitted.items() for line in specialist.history],
        columns=["fold", *HISTORY],
    )
    with artifacts.replacing_folder(layout.plots(stage)) as plots:
        artifacts.write_csv(plots / "folds.csv", history)
        artifacts.write_csv(plots / "history.csv", history.loc[history["fold"] == FINAL].drop(columns="fold"))
        artifacts.write_csv(plots / "confusion.csv", out_of_fold.confusion())


def _write_absent(stage: str, corpus: SpecialistRows, why: str, layout: Layout) -> None:
    """A modality that cannot be trained leaves empty tables behind, so that the graph goes on without it."""
    none = pd.DataFrame({name: pd.Series(dtype=object) for name in ("sample_id", "split", "fold", "kind", "subset")})
    with artifacts.replacing_folder(layout.model(stage)) as folder:
        nothing = np.array([], dtype=int)
        artifacts.write_predictions(
            folder / "predictions.parquet", Predictions(none, np.empty((0, len(corpus.labels)), dtype=np.float32))
        )
        description = SpecialistDescription(
            stage=stage,
            labels=corpus.labels,
            modalities=(corpus.modality,),
            absent=True,
            calibration=identity_calibration(len(corpus.labels)),
            fitted=write_fitted(folder, fitted_rows(corpus.posts, FINAL, nothing, nothing)),
        )
        write_model(folder, None, description)
    write_metrics(layout, stage, {"posts": {"train_rows": 0, "warnings": [why]}})
    with artifacts.replacing_folder(layout.plots(stage)) as plots:
        artifacts.write_csv(plots / "folds.csv", pd.DataFrame(columns=["fold", *HISTORY]))
        artifacts.write_csv(plots / "history.csv", pd.DataFrame(columns=HISTORY))
        artifacts.write_csv(plots / "confusion.csv", pd.DataFrame(columns=["actual", "predicted"]))
