"""How often the intervals of few groups hold the truth: simulated corpora whose true scores are known.

    python -m benchmarks.intervals [--simulations 400] [--resamples 300]

Groups differ in their classes, in how well they are judged and, but for every third line, in their sizes too
(log-normal, so that a few have most of the rows). A corpus of very many groups gives the truth. Prints a line of
Markdown a statistic: of each number of groups, how many intervals of 95 % hold the truth, those from percentiles of the
resamples and those of ``pipeline.scoring.intervals``, how wide these are, and how many corpora have one.
"""

import argparse
from collections.abc import Callable

import numpy as np

from pipeline.scoring.intervals import Resampled, resampled_macro_f1, resampled_macro_f1_difference, resampled_scores

GROUPS = (8, 12, 20, 74)
MANY = 10_000
CONFIDENCE = 0.95
SHARES = np.array([0.4, 0.2, 0.2, 0.1, 0.1])

SIZES = {"5 to 15 rows each": 0.0, "unequal": 1.0, "very unequal": 2.0}
"""Deviations of the logarithms of the groups' sizes."""

Statistic = Callable[[np.random.Generator, int, float, int], Resampled]


def members(rng: np.random.Generator, groups: int, spread: float) -> np.ndarray:
    """The group of each row; about ten rows a group."""
    if not spread:
        return np.repeat(np.arange(groups), rng.integers(5, 16, groups))
    sizes = np.round(10 * rng.lognormal(-(spread**2) / 2, spread, groups)).astype(int)
    return np.repeat(np.arange(groups), np.maximum(sizes, 1))


def posts(rng: np.random.Generator, group: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Classes, and those that two systems say, which are lucky and unlucky in the same groups in part."""
    count, classes = group[-1] + 1, len(SHARES)
    tilted = SHARES * np.exp(0.7 * rng.normal(size=(count, classes)))
    bounds = (tilted / tilted.sum(axis=1, keepdims=True)).cumsum(axis=1)
    actual = (rng.random(len(group))[:, None] > bounds[group]).sum(axis=1).clip(max=classes - 1)
    common = rng.normal(size=count)
    said = []
    for skill in (0.4, 0.1):
        luck = 0.7 * (common + rng.normal(size=count))
        right = rng.random(len(group)) < 1 / (1 + np.exp(-(skill + luck[group])))
        said.append(np.where(right, actual, rng.integers(0, classes, len(group))))
    return actual, said[0], said[1]


def macro_f1(rng: np.random.Generator, groups: int, spread: float, resamples: int) -> Resampled:
    group = members(rng, groups, spread)
    actual, a, _ = posts(rng, group)
    return resampled_macro_f1(actual, a, group, len(SHARES), resamples, 0)


def difference(rng: np.random.Generator, groups: int, spread: float, resamples: int) -> Resampled:
    group = members(rng, groups, spread)
    actual, a, b = posts(rng, group)
    return resampled_macro_f1_difference(actual, a, b, group, len(SHARES), resamples, 0)


def score(metric: str) -> Statistic:
    """Scores with heavy tails, predictions whose error has a part that a group's rows share."""

    def made(rng: np.random.Generator, groups: int, spread: float, resamples: int) -> Resampled:
        group = members(rng, groups, spread)
        actual = 0.8 * rng.normal(size=groups)[group] + 1.2 * rng.standard_t(6, size=len(group))
        loud = np.exp(0.3 * rng.normal(size=groups))[group]
        wrong = 0.5 * rng.normal(size=groups)[group] + 0.7 * loud * rng.normal(size=len(group))
        predicted = {"a": (0.55 * actual + wrong)[None]}
        return resampled_scores(actual, predicted, group, resamples, 0)["a"][metric]

    return made


STATISTICS: dict[str, Statistic] = {
    "macro-F1, five classes": macro_f1,
    "difference of macro-F1": difference,
    "Pearson's r": score("pearson"),
    "MAE": score("mae"),
}


def cell(statistic: Statistic, groups: int, spread: float, simulations: int, resamples: int, truth: float) -> str:
    rng = np.random.default_rng([groups, int(spread)])
    usual, held, widths = 0, 0, []
    for _ in range(simulations):
        drawn = statistic(rng, groups, spread, resamples)
        low, high = np.nanquantile(drawn.draws, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        usual += low <= truth <= high
        if (interval := drawn.interval(CONFIDENCE)) is not None:
            held += interval[0] <= truth <= interval[1]
            widths.append(interval[1] - interval[0])
    some = "" if len(widths) == simulations else f", {len(widths) / simulations:.0%} of corpora"
    return f"{usual / simulations:.1%} → {held / len(widths):.1%} ({np.mean(widths):.2f}{some})"


def main() -> None:
    parser = argparse.ArgumentParser(description="How often intervals of few groups hold the truth.")
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--resamples", type=int, default=300)
    options = parser.parse_args()
    print("| statistic | sizes \\ groups | " + " | ".join(str(count) for count in GROUPS) + " |")
    print("|---" * (2 + len(GROUPS)) + "|")
    for name, statistic in STATISTICS.items():
        for sizes, spread in SIZES.items():
            truth = statistic(np.random.default_rng(1), MANY, spread, 1).value
            cells = [cell(statistic, count, spread, options.simulations, options.resamples, truth) for count in GROUPS]
            print(f"| {name} | {sizes} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
