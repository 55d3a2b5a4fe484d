"""The table of a study: differences are those of scikit-learn's scores, and other posts are refused."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.metrics import f1_score

from benchmarks.study import Part, Run, line
from pipeline.core.errors import InputError


def run(name: str, share: float, seed: int) -> Run:
    """Of 300 posts of 60 authors, predicted right that often."""
    rng = np.random.default_rng(seed)
    codes = np.arange(300) % 3
    predicted = np.where(rng.random(300) < share, codes, (codes + 1) % 3)
    part = Part(np.arange(300), np.arange(300) // 5, codes, predicted, np.eye(3)[predicted])
    return Run(name, "averaged", part, part)


def test_an_experiment_is_a_line_with_its_difference_to_the_first() -> None:
    base, better = run("base", 0.5, 1), run("better", 0.8, 2)
    name, taken, score, less, error, tested = [cell.strip() for cell in line(better, base).strip("| ").split("|")]
    known = [f1_score(of.learned.codes, of.learned.predicted, average="macro") for of in (base, better)]
    wrong = (better.learned.predicted != better.learned.codes).mean()  # all of them with a probability of 1
    assert (name, taken) == ("better", "averaged")
    assert [float(score), float(tested), float(error)] == pytest.approx([known[1], known[1], wrong], abs=6e-4)
    value, low, high = (float(number.strip("[,]")) for number in less.split())
    assert value == pytest.approx(known[1] - known[0], abs=6e-4)
    assert 0 < low < value < high
    assert line(base, base).split("|")[4].strip() == ""


def test_runs_of_other_posts_are_not_compared() -> None:
    base = run("base", 0.5, 1)
    other = replace(base, name="other", learned=replace(base.learned, codes=base.learned.codes[::-1]))
    with pytest.raises(InputError, match="other and base: learned from other posts"):
        line(other, base)
