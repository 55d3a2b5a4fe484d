"""Which frames of a clip are taken: those on screen at the middles of equal intervals."""

import numpy as np

Frames = tuple[int, int | None]
"""Frames as they are asked for: how many, and the shortest side that is needed."""


def uniform(starts: np.ndarray, end: float, frames: int) -> np.ndarray:
    """Which frames are on screen at the middles of ``frames`` equal intervals; ``starts`` ascends, in any unit."""
    if len(starts) <= frames:
        return np.arange(len(starts))
    middles = starts[0] + (end - starts[0]) * (np.arange(frames) + 0.5) / frames
    return np.unique(np.searchsorted(starts, middles, side="right") - 1)
