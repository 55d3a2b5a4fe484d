"""The unit in which scores are learned, so that a scale from -300 to 300 trains as one from -3 to 3 does.

Losses weigh squared against absolute errors, weights begin near zero and move by steps of one size: all of this is made
for scores that differ by about 1. Models give scores of the corpus, whatever they were trained in.
"""

import math

import numpy as np


def score_unit(scores: np.ndarray) -> float:
    """The power of ten next to the standard deviation of scores, float [n], by ratio: 1 for one of .32 to 3.16.

    1 where the scores, NaN left out, are fewer than two or all the same.
    """
    known = np.asarray(scores, dtype=np.float64)
    known = known[np.isfinite(known)]
    spread = float(np.std(known)) if len(known) else 0.0
    return 10.0 ** round(math.log10(spread)) if spread > 0 else 1.0
