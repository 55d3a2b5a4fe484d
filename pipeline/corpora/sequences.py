"""A folder of CMU Multimodal SDK files (.csd) → one row a labelled segment; and sequences → vectors of fixed width.

A .csd is HDF5: a top group named as the sequence, in it ``data/<key>/features`` [T, width] and ``data/<key>/intervals``
[T, 2] in seconds. One of the files holds the labels; every other is a modality, cut into the labels' segments.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.errors import InputError
from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora import hdf5

LABELS = ("label", "opinion")
NAMES: dict[Feature, tuple[str, ...]] = {
    "text": ("word", "text", "glove", "bert"),
    "audio": ("covarep", "opensmile", "audio", "acoustic"),
    "visual": ("facet", "openface", "visual", "vision", "video"),
}
"""What the name of a file or of its top group contains, by modality."""

PAUSE = "sp"
"""The word that stands for silence."""


def pooled(steps: np.ndarray) -> np.ndarray:
    """A sequence [T, width], T > 0 → float32 [2 * width + 1]: means, standard deviations, length.

    Values that are no finite numbers are left out; a column without any other value is NaN.
    """
    steps = np.asarray(steps, dtype=np.float64)
    finite = np.isfinite(steps)
    count = finite.sum(axis=0)
    # 0 / 0 in a column without a finite value is the NaN that is wanted; a square beyond all numbers is infinite.
    with np.errstate(invalid="ignore", over="ignore"):
        mean = np.where(finite, steps, 0.0).sum(axis=0) / count
        spread = np.sqrt((np.where(finite, steps - mean, 0.0) ** 2).sum(axis=0) / count)
        return np.concatenate([mean, spread, [len(steps)]]).astype(np.float32)


@dataclass(frozen=True)
class Segments:
    """What a folder holds: N labelled segments in the order of the labels' keys.

    Attributes:
        ids, groups: ``key[n]`` and ``key``.
        scores: float [N]; NaN where the label is none.
        words: the words said in each segment, or None where there is no file of words.
        cells: modality → N pooled vectors, None where nothing overlaps the segment.
    """

    ids: list[str]
    groups: list[str]
    scores: list[float]
    words: list[str | None] | None
    cells: dict[Feature, list[np.ndarray | None]]


@dataclass(frozen=True)
class _Sequence:
    """One open .csd file: its path and the HDF5 group with a member for each key."""

    path: Path
    data: Any

    def listed(self) -> list[str]:
        try:
            return hdf5.names(self.data)
        except hdf5.HDF5Error as error:
            raise InputError(f"{self.path}: data {error}") from None

    def steps(self, key: str) -> tuple[np.ndarray, np.ndarray] | None:
        """Features [T, width] and intervals [T, 2] of a key in the order of time, or None without the key."""
        try:
            steps = hdf5.member(self.data, key)
            if steps is None:
                return None
            parts = {name: hdf5.member(steps, name) for name in ("features", "intervals")}
            features = hdf5.array(parts["features"])
            intervals = hdf5.array(parts["intervals"]).astype(np.float64)
        except (hdf5.HDF5Error, AttributeError, TypeError, ValueError) as error:
            raise InputError(f"{self.path}: data/{key} has no readable features and intervals: {error}") from None
        if features.ndim == 0 or (features.ndim > 1 and not np.prod(features.shape[1:])):
            raise InputError(
                f"{self.path}: data/{key}: features of shape {list(features.shape)}; [steps, width] is needed"
            )
        features = features.reshape(len(features), int(np.prod(features.shape[1:])))
        if not len(features):
            return features, np.empty((0, 2))
        if intervals.shape != (len(features), 2):
            raise InputError(
                f"{self.path}: data/{key}: {len(features)} steps of features with intervals of shape "
                f"{list(intervals.shape)}; one start and one end a step are needed"
            )
        order = np.argsort(intervals[:, 0], kind="stable")
        return features[order], intervals[order]


def read_folder(path: Path, where: str) -> Segments:
    """Reads the .csd files of a folder; ``where`` is the key of params that named it.

    Raises InputError when h5py is not installed, when there is not one file of labels and at most one for each
    modality, or when a file is no computational sequence.
    """
    files = sorted(file for file in path.iterdir() if file.suffix == ".csd")
    if not files:
        raise InputError(f"{path}: holds no .csd file; set {where} to a corpus in params.yaml")
    with ExitStack() as stack:
        labels, words, features = _by_role(path, [stack.enter_context(_opened(file)) for file in files])
        return _cut(labels, words, features)


@contextmanager
def _opened(path: Path) -> Iterator[tuple[str, _Sequence]]:
    """The name of a file's top group, and the sequence."""
    with hdf5.opened(path) as file:
        try:
            inside = {str(name): hdf5.group(hdf5.member(file, name), "data") for name in hdf5.names(file)}
        except (hdf5.HDF5Error, *hdf5.UNREADABLE) as error:
            raise InputError(f"{path}: not a readable HDF5 file: {' '.join(str(error).split())}") from None
        roots = {name: data for name, data in inside.items() if data is not None}
        if len(roots) != 1:
            raise InputError(f"{path}: not a computational sequence; one top group with `data` is needed")
        ((root, data),) = roots.items()
        yield root, _Sequence(path, data)


def _by_role(
    path: Path, sequences: Sequence[tuple[str, _Sequence]]
) -> tuple[_Sequence, _Sequence | None, dict[Feature, _Sequence]]:
    """The labels, the words if there are any, and the features by modality."""
    roles: dict[str, _Sequence] = {}
    for root, sequence in sequences:
        role = _role(sequence.path, root)
        if role == "text" and _holds_words(sequence):
            role = "words"
        if role in roles:
            raise InputError(
                f"{path}: {roles[role].path.name} and {sequence.path.name} are both {role}; move one to another folder"
            )
        roles[role] = sequence
    if "labels" not in roles:
        raise InputError(f"{path}: none of the .csd files is named as labels; name it so that it contains `label`")
    return roles["labels"], roles.get("words"), {name: roles[name] for name in FEATURES if name in roles}


def _role(path: Path, root: str) -> str:
    for name in (path.stem.lower(), root.lower()):
        if any(part in name for part in LABELS):
            return "labels"
        for modality, parts in NAMES.items():
            if any(part in name for part in parts):
                return modality
    known = ", ".join(part for parts in (LABELS, *NAMES.values()) for part in parts)
    raise InputError(f"{path}: neither its name nor {root} says what it holds; rename it to contain one of {known}")


def _holds_words(sequence: _Sequence) -> bool:
    first = next((steps for key in sequence.listed() if (steps := sequence.steps(key)) is not None), None)
    return first is not None and first[0].dtype.kind in "SOU"


def _cut(labels: _Sequence, words: _Sequence | None, features: Mapping[Feature, _Sequence]) -> Segments:
    """Cuts every sequence into the segments of the labels."""
    segments = Segments([], [], [], None if words is None else [], {modality: [] for modality in features})
    for key in labels.listed():
        label = labels.steps(key)
        if label is None:
            raise InputError(f"{labels.path}: data/{key} is listed, and is not there; get the file again")
        segments.ids.extend(f"{key}[{number}]" for number in range(len(label[0])))
        # In aligned corpora each segment has a key of its own, `video[3]`.
        segments.groups.extend(key.partition("[")[0] for _ in label[0])
        segments.scores.extend(_number(values, labels.path, key) for values in label[0])
        for modality, sequence in features.items():
            segments.cells[modality].extend(_vectors(sequence, key, label[1]))
        if words is not None and segments.words is not None:
            segments.words.extend(_said(words, key, label[1]))
    return segments


def _number(values: np.ndarray, path: Path, key: str) -> float:
    try:
        return float(values[0])
    except (IndexError, TypeError, ValueError):
        raise InputError(f"{path}: data/{key}: the first column of a label must be its score, a number") from None


def _vectors(sequence: _Sequence, key: str, segments: np.ndarray) -> Iterator[np.ndarray | None]:
    steps = sequence.steps(key)
    if steps is not None and steps[0].dtype.kind not in "fiub":
        raise InputError(f"{sequence.path}: data/{key}: features are {steps[0].dtype}, not numbers")
    for segment in segments:
        inside = steps[0][_overlap(steps[1], segment)] if steps is not None else ()
        yield pooled(np.asarray(inside)) if len(inside) else None


def _said(sequence: _Sequence, key: str, segments: np.ndarray) -> Iterator[str | None]:
    steps = sequence.steps(key)
    for segment in segments:
        inside = steps[0][_overlap(steps[1], segment), 0] if steps is not None else ()
        words = [word.decode("utf-8", "replace") if isinstance(word, bytes) else str(word) for word in inside]
        yield " ".join(word for word in words if word != PAUSE) or None


def _overlap(intervals: np.ndarray, segment: np.ndarray) -> np.ndarray:
    """bool [T]: steps that share time with the segment; a step without length counts where it lies."""
    starts, ends = intervals.T
    return (starts < segment[1]) & ((ends > segment[0]) | (starts >= segment[0]))
