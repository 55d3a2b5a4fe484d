"""Which of several candidates to take: the simplest that is not clearly behind the best.

By ``one_standard_error``, twice. What is clearly behind in macro-F1, which is what counts in the end, is out. But
macro-F1 on a few hundred rows hangs on a handful of the rarest class, and the best of several by it is often best by
luck; so what is left is compared by the same rule in the balanced log-loss, to which every class adds the same, as to
macro-F1, and every row something.

A candidate may be favoured, for what few rows cannot show: it is taken unless it is clearly behind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from pipeline.scoring import emotion
from pipeline.scoring.calibration import Calibration, behind_in_macro_f1, fit
from pipeline.scoring.one_standard_error import behind


@dataclass(frozen=True)
class Selection:
    """What was taken: its position among the candidates, how its logits are calibrated, and what was tried.

    Each of ``tried``, by name, has its ``macro_f1`` and its ``balanced_log_loss`` on rows out of fold, and for both how
    far it is behind the best (``…_behind``) and the standard error of that difference (``…_error``); those of the loss
    only where macro-F1 left it in. ``favoured`` says that what was taken was, and simpler ones were as good.
    """

    taken: int
    calibration: Calibration
    tried: dict[str, dict[str, float]]
    favoured: bool = False

    def report(self) -> dict[str, Any]:
        """For a metrics file: what stood, what was taken and why."""
        names = list(self.tried)
        out = [name for name, scores in self.tried.items() if "loss_behind" not in scores]
        simpler = [name for name in names[: self.taken] if name not in out]
        why = "favoured, and not clearly behind" if self.favoured else "the simplest that is not clearly behind"
        if out:
            why += f"; clearly behind in macro-F1: {', '.join(out)}"
        if simpler and not self.favoured:
            why += f"; in balanced log-loss: {', '.join(simpler)}"
        return {"taken": names[self.taken], "why": why if len(names) > 1 else "the only candidate", "tried": self.tried}


def choose(
    names: Sequence[str],
    logits: Sequence[np.ndarray],
    actual: np.ndarray,
    groups: np.ndarray,
    favoured: str | None = None,
) -> Selection:
    """The first candidate that is not clearly behind the best, or the ``favoured`` one; see the top of this file.

    Args:
        names: of the candidates, the simplest first.
        logits: of each for the same n rows, which it had not seen: float [n, K].
        actual: int [n], their classes.
        groups: [n] names; groups vary as wholes.
    """
    calibrations = [fit(of_candidate, actual, groups) for of_candidate in logits]
    calibrated = [by.calibrated(of_candidate) for by, of_candidate in zip(calibrations, logits, strict=True)]
    predicted = [by.decide(of_candidate) for by, of_candidate in zip(calibrations, calibrated, strict=True)]
    losses = [balanced_losses(of_candidate, actual) for of_candidate in calibrated]
    scores = behind_in_macro_f1(predicted, actual, groups, calibrated[0].shape[1])
    tried = {
        name: {
            "macro_f1": score.value,
            "macro_f1_behind": score.behind.by,
            "macro_f1_error": score.behind.error,
            "balanced_log_loss": float(loss.sum()),
        }
        for name, score, loss in zip(names, scores, losses, strict=True)
    }
    left = [at for at, score in enumerate(scores) if not score.behind.clearly]
    least = min((losses[at] for at in left), key=np.sum)
    in_loss = {at: behind(losses[at], least, groups) for at in left}
    for at, difference in in_loss.items():
        tried[names[at]] |= {"loss_behind": difference.by, "loss_error": difference.error}
    level = [at for at in left if not in_loss[at].clearly]
    taken = next((at for at in level if names[at] == favoured), level[0])
    return Selection(taken, calibrations[taken], tried, favoured=taken != level[0])


def without_rivals(name: str, logits: np.ndarray, actual: np.ndarray, calibration: Calibration) -> Selection:
    """Where there is nothing to choose: a candidate as it is calibrated, on n rows that it had not seen."""
    calibrated = calibration.calibrated(logits)
    macro_f1 = emotion.macro_f1(actual, calibration.decide(calibrated), calibrated.shape[1])
    loss = float(balanced_losses(calibrated, actual).sum())
    behind = dict.fromkeys(("macro_f1_behind", "macro_f1_error", "loss_behind", "loss_error"), 0.0)
    return Selection(0, calibration, {name: {"macro_f1": macro_f1, "balanced_log_loss": loss, **behind}})


def balanced_losses(calibrated: np.ndarray, actual: np.ndarray) -> np.ndarray:
    """What each row adds to the balanced log-loss, float64 [n]: their sum is the mean over classes of a class's mean.

    The logits [n, K] are moved to where all classes are equally frequent, so that a model is not blamed for its prior.
    """
    classes = calibrated.shape[1]
    counts = np.bincount(actual, minlength=classes)
    shares = (counts + 1) / (len(actual) + classes)
    log_p = emotion.log_probabilities(calibrated - np.log(shares))
    return -log_p[np.arange(len(actual)), actual] / (np.count_nonzero(counts) * counts[actual])
