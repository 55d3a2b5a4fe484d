"""Which posts or rows are copies of each other: same text, same file, near-identical pictures, texts or vectors.

Copies end in one group, so that none is trained on while its twin is scored.
"""

from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora.stored_rows import Numbered, StoredRows, digests, firsts, runs
from pipeline.corpora.wording import batched, name_key, normalised, one_word_apart, run_numbers, word_count

SAME_WORDS, NEAR_WORDS = 8, 12
"""Fewest words of texts that count as copies when they are the same, or nearly so: short ones recur by chance.

In dialogues (MELD) and comments (GoEmotions), of the texts of one word .34 and .15 stand in another dialogue or post
too, of three words .09 and .07, of five words .013 and .008; from eight words on it is .002 and .0005, whatever the
length, and all of those in MELD are lines said again on purpose.
"""
PHRASE_WORDS, RARE_GROUPS = 3, 3
"""A text of fewer words than ``SAME_WORDS`` counts if it has so many, and so many groups at most hold it."""
PHRASE_LINKS = 0.25
"""Phrases link given groups at most so many times as there are such groups, or they recur by chance.

Links that fall at random join most groups into one when they are half as many (Erdős and Rényi 1960); at a quarter, a
group is joined to one other on average.
"""
SHINGLE, SHINGLES_SHARED = 3, 0.85
"""Nearly the same: of the different runs of so many words in either text, this share is in both (Jaccard index).

In texts of fewer than 39 words one changed word leaves less than that, so these are compared word by word.
"""
TEMPLATE, MOST_CELLS = 200, 2**26
"""See ``_sharing``."""
TELLING_WIDTH = 8
"""Vectors of fewer columns are alike by chance."""
EQUAL_COLUMNS = 4
"""Rows without wider vectors are copies where they are equal in so many columns whose values mostly differ."""
ALIKE = 1e-3
"""Vectors are copies when they are no further apart than this share of the typical standardised vector's length."""
PROJECTIONS = 6

Edges = list[tuple[int, int]]

compute: Any = pyarrow.compute
"""Its functions are made when it is imported, where no type checker sees them."""


def same_texts(rows: StoredRows) -> Edges:
    """Links each text to the first that says the same, or nearly so, where that is evidence of a copy and no accident.

    A text of ``SAME_WORDS`` words is a copy, and one that many repost is many copies. A shorter one, a phrase, is a
    copy if it has ``PHRASE_WORDS`` words and stands in ``RARE_GROUPS`` groups at most: the same few words of two users
    may well be a repost, but what many say they say by themselves. Where groups are large, as speakers are, any two of
    them share some rare phrase: if those in several given groups make more links than ``PHRASE_LINKS`` allows, they
    are no copies either. A word or two, or emoji alone, are never a copy: "yeah" in two dialogues is none. Texts of
    ``NEAR_WORDS`` words may differ a little, as in ``near_rows``.

    Args:
        rows: N, with the columns ``text`` and ``group`` (author, dialogue); a row without one is a group of its own.
    """
    plain, held, words = _plain(rows)
    groups = group_numbers(rows)
    phrases = np.flatnonzero((held >= 0) & (words < SAME_WORDS))
    alone = np.bincount(held[phrases[groups[phrases] < 0]], minlength=len(held))
    within = np.unique(held[phrases] << 32 | groups[phrases] + 1)  # each phrase with each group that has it
    given = np.bincount(within[within & (2**32 - 1) > 0] >> 32, minlength=len(held))
    rare = given + alone <= RARE_GROUPS
    across = np.unique(held[phrases])
    across = across[rare[across] & (given[across] > 1)]
    if (given[across] - 1).sum() > PHRASE_LINKS * (np.unique(groups) >= 0).sum():
        rare[across] = False
    copied = (held >= 0) & ((words >= SAME_WORDS) | rare[held])
    repeated = np.flatnonzero(copied & (held != np.arange(len(held))))
    near = _near_texts(_Long(plain, copied & (held == np.arange(len(held)))), rows.folder)
    return sorted({*zip(held[repeated].tolist(), repeated.tolist(), strict=True), *near})


def group_numbers(rows: StoredRows) -> np.ndarray:
    """int64 [N]: equal for rows of one given ``group``, however it is spelt; -1 where it has none."""
    parts = [digests([])]
    for names in rows.texts("group"):
        keys = {name: None if name is None else name_key(name) for name in set(names)}
        parts.append(digests(keys[name] for name in names))
    return firsts(np.concatenate(parts))


def _plain(rows: StoredRows) -> tuple[StoredRows, np.ndarray, np.ndarray]:
    """The normalised texts; int64 [N], the first row that says the same, -1 where it says too little; their words."""
    plain = StoredRows(["text"], rows.folder)
    keys, words = [digests([])], [np.zeros(0, dtype=np.int32)]
    for texts in rows.texts("text"):
        some = [None if text is None else normalised(text) for text in texts]
        plain.add({"text": some})
        keys.append(digests(some))
        words.append(np.array([0 if text is None else word_count(text) for text in some], dtype=np.int32))
    held, counts = firsts(np.concatenate(keys)), np.concatenate(words)
    held[counts < PHRASE_WORDS] = -1
    return plain, held, counts


@dataclass(frozen=True)
class _Long:
    """Those of the stored texts, all different, that are wanted and have ``NEAR_WORDS`` words: the row and the text."""

    stored: StoredRows
    selected: np.ndarray

    def __iter__(self) -> Iterator[tuple[int, str]]:
        at = 0
        for texts in self.stored.texts("text"):
            for row in (at + np.flatnonzero(self.selected[at : at + len(texts)])).tolist():
                text = texts[row - at]
                if text is not None and text.count(" ") >= NEAR_WORDS - 1:
                    yield row, text
            at += len(texts)


def same_keys(keys: Sequence[Hashable | None]) -> Edges:
    """Links each row to the first one with its key; rows without a key are linked to none."""
    first: dict[Hashable, int] = {}
    return [(first[key], at) for at, key in enumerate(keys) if key is not None and first.setdefault(key, at) != at]


def near_rows(
    texts: Sequence[str | None], vectors: Mapping[Feature, np.ndarray], present: Mapping[Feature, np.ndarray]
) -> Edges:
    """Pairs of rows of feature corpora that are copies of each other; enough of them to link each copy to its like.

    Two rows are copies when they say the same in at least ``SAME_WORDS`` words, or nearly the same in at least
    ``NEAR_WORDS``, or when all vectors that both have are alike; where none has ``TELLING_WIDTH`` columns, when these
    are the same numbers. For two tables, put one under the other.

    Args:
        texts: N texts, None where a row has none.
        vectors: modality → float [N, width], absent rows and values that are no finite numbers anyhow.
        present: modality → bool [N].
    """
    words = [normalised(text) if text is not None else None for text in texts]
    long = [text if text is not None and word_count(text) >= SAME_WORDS else None for text in words]
    first = {text: at for at, text in reversed(list(enumerate(long))) if text is not None}
    different = sorted((at, text) for text, at in first.items() if text.count(" ") >= NEAR_WORDS - 1)
    return sorted({*same_keys(long), *_near_texts(different), *_alike(vectors, present), *_equal(vectors, present)})


def near_lines(texts: Sequence[str | None]) -> Edges:
    """Pairs of texts of which a line of one is a copy of a line of the other, as ``near_rows`` finds them."""
    lines = [(at, line) for at, text in enumerate(texts) if text is not None for line in text.split("\n")]
    return between(near_rows([line for _, line in lines], {}, {}), [at for at, _ in lines])


def between(edges: Edges, whole: Sequence[int]) -> Edges:
    """The pairs of wholes of which parts are linked, none with itself; ``whole`` is that of each part."""
    pairs = ((int(whole[a]), int(whole[b])) for a, b in edges)
    return sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})


def _near_texts(texts: Iterable[tuple[int, str]], scratch: Path | None = None) -> Edges:
    """Pairs of texts that differ in one word, or share ``SHINGLES_SHARED`` of shingles.

    Args:
        texts: rows and their normalised texts, all different, of ``NEAR_WORDS`` words, by row; iterated over again.
    """
    return _sharing(texts, scratch) + one_word_apart(texts, scratch)


def _sharing(texts: Iterable[tuple[int, str]], scratch: Path | None) -> Edges:
    """Pairs of texts that share ``SHINGLES_SHARED`` of shingles.

    Prefix filtering (Chaudhuri, Ganti and Kaushik 2006) finds them without comparing all with all: with the rarest
    shingles first, two such sets share one of the first (1 - share) of either. What many texts have as their rarest is
    a form that they fill in, as in ``one_word_apart``: of more than ``TEMPLATE`` none are compared for it.

    Shingles are known by numbers, and how often each stands is counted in cells, of which several may share one: rarer
    by such a count is an order like any other, and what is alone in a cell is nowhere else. Memory holds only texts
    that have a rarest shingle in common.
    """
    words = sum(text.count(" ") for _, text in texts)
    cells = min(2 ** (words.bit_length() + 1), MOST_CELLS)
    counts = np.zeros(cells, dtype=np.uint32)
    for _, numbers in _shingles(texts):
        np.add.at(counts, numbers % cells, 1)
    rarest = Numbered(scratch)
    for rows, numbers in _shingles(texts):
        rarest.add(*_first_by(counts[numbers % cells], numbers, rows))
    groups = [rows.tolist() for rows in rarest.together() if len(rows) <= TEMPLATE]
    held = np.unique([row for rows in groups for row in rows])
    shingles: dict[int, set[int]] = {}
    for rows, numbers in _shingles(texts):
        is_held = np.isin(rows, held)
        for row, number in zip(rows[is_held].tolist(), numbers[is_held].tolist(), strict=True):
            shingles.setdefault(row, set()).add(number)
    edges: set[tuple[int, int]] = set()
    for rows in groups:
        by_size = sorted(rows, key=lambda row: len(shingles[row]))
        for at, row in enumerate(by_size):
            for other in by_size[at + 1 :]:
                if len(shingles[row]) < SHINGLES_SHARED * len(shingles[other]):
                    break
                shared = len(shingles[row] & shingles[other])
                if shared >= SHINGLES_SHARED * (len(shingles[row]) + len(shingles[other]) - shared):
                    edges.add((min(row, other), max(row, other)))
    return sorted(edges)


def _first_by(often: np.ndarray, numbers: np.ndarray, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each row's shingles, given how often there are such, the rarest that `_sharing` compares by; and their rows.

    Those that are in no other text are left out.
    """
    order = np.lexsort((numbers, often, rows))
    starts = np.flatnonzero(np.diff(rows[order], prepend=-1))
    sizes = np.diff(starts, append=len(order))
    place = np.arange(len(order)) - np.repeat(starts, sizes)
    first = np.repeat(sizes - np.ceil(SHINGLES_SHARED * sizes).astype(int) + 1, sizes)
    kept = order[(place < first) & (often[order] > 1)]
    return numbers[kept], rows[kept]


def _shingles(texts: Iterable[tuple[int, str]]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Rows, and numbers for their different shingles, int64 [n] each; all of a row together."""
    for some in batched(texts):
        numbers, place = run_numbers([text for _, text in some], SHINGLE)
        rows = np.array([row for row, _ in some])[place]
        order = np.lexsort((numbers, rows))
        rows, numbers = rows[order], numbers[order]
        new = np.ones(len(order), dtype=bool)
        new[1:] = (rows[1:] != rows[:-1]) | (numbers[1:] != numbers[:-1])
        yield rows[new], numbers[new]


def _alike(vectors: Mapping[Feature, np.ndarray], present: Mapping[Feature, np.ndarray]) -> Edges:
    """Pairs of rows that are alike in every modality that both have.

    Rows are compared once for each set of modalities that some two rows may have in common.
    """
    names: list[Feature] = [name for name in FEATURES if name in vectors and vectors[name].shape[1] >= TELLING_WIDTH]
    # A vector of zeros is what an extractor gives that found nothing: no evidence of anything.
    filled = {name: present[name] & np.nan_to_num(vectors[name]).any(axis=1) for name in names}
    units = {name: _standardised(vectors[name], filled[name]) for name in names}
    if not names:
        return []
    have = np.sum([filled[name].astype(int) << bit for bit, name in enumerate(names)], axis=0)
    patterns = np.unique(have)
    edges: Edges = []
    for shared in sorted({int(one & other) for one in patterns for other in patterns} - {0}):
        rows = np.flatnonzero((have & shared) == shared)
        blocks = [units[name][rows] for bit, name in enumerate(names) if shared >> bit & 1]
        for left, right in _alike_pairs(blocks, have[rows], shared):
            edges.append((int(rows[min(left, right)]), int(rows[max(left, right)])))
    return edges


def _equal(vectors: Mapping[Feature, np.ndarray], present: Mapping[Feature, np.ndarray]) -> Edges:
    """Links rows that have narrow vectors only, and in these the same numbers, each to the first of its like.

    Columns of a few values, as ratings are, repeat by chance and are not looked at.
    """
    wide = [present[name] for name in vectors if vectors[name].shape[1] >= TELLING_WIDTH]
    narrow = [
        np.where(present[name][:, None] & np.isfinite(vectors[name]), vectors[name] + 0.0, 0.0)  # zeros of one sign
        for name in FEATURES
        if name in vectors and vectors[name].shape[1] < TELLING_WIDTH
    ]
    if not narrow:
        return []
    rows = np.flatnonzero(~np.any(wide, axis=0)) if wide else np.arange(len(narrow[0]))
    values = np.concatenate(narrow, axis=1)
    varied = [bool(len(np.unique(column[column != 0])) > max(np.count_nonzero(column) / 2, 1)) for column in values.T]
    values = np.ascontiguousarray(values[rows][:, np.flatnonzero(varied)])
    telling = np.count_nonzero(values, axis=1) >= EQUAL_COLUMNS
    keys = [row.tobytes() if enough else None for row, enough in zip(values, telling, strict=True)]
    return [(int(rows[one]), int(rows[other])) for one, other in same_keys(keys)]


def _standardised(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """float32 [N, width]: columns with mean 0 and deviation 1, the median row of length 1; zeros where not finite."""
    values = np.where(present[:, None] & np.isfinite(values), values, np.nan).astype(np.float32)
    if not present.any():
        return np.zeros_like(values)
    known = ~np.isnan(values)
    count = np.maximum(known.sum(axis=0), 1)
    values -= np.where(known, values, 0).sum(axis=0, dtype=np.float64) / count
    deviation = np.sqrt((np.where(known, values, 0) ** 2).sum(axis=0, dtype=np.float64) / count)
    values = np.nan_to_num(values / np.where(deviation > 0, deviation, np.inf))
    typical = np.median(np.linalg.norm(values[present], axis=1))
    return values / typical if typical > 0 else values


def _alike_pairs(blocks: Sequence[np.ndarray], have: np.ndarray, shared: int) -> Iterator[tuple[int, int]]:
    """Pairs of positions whose blocks are all alike and whose common modalities are exactly ``shared``.

    Equal rows are linked directly. The others are looked for around each row after a projection onto a few random
    directions at right angles, which brings no two rows further apart.
    """
    joined = np.concatenate(blocks, axis=1)
    # Bytes of the rows, since comparing their numbers would take most of the time; + 0.0 makes one of both zeros.
    member = pd.factorize(np.array([(row + 0.0).tobytes() for row in joined], dtype=object))[0]
    firsts = np.unique(member, return_index=True)[1]
    order = np.argsort(member, kind="stable")
    equal = np.split(order, np.flatnonzero(np.diff(member[order])) + 1)
    for rows in equal:
        if len(rows) > 1:
            yield from _across(rows, rows, have, shared)

    directions = np.random.default_rng(0).normal(size=(joined.shape[1], PROJECTIONS))
    flat = joined[firsts] @ np.linalg.qr(directions)[0].astype(np.float32)
    # Each block may be ALIKE apart; rounding in the projection is far below the tenth that is added.
    pairs = cKDTree(flat).query_pairs(1.1 * ALIKE * len(blocks) ** 0.5, output_type="ndarray")
    for left, right in pairs:
        a, b = firsts[left], firsts[right]
        if all(np.linalg.norm(block[a] - block[b]) <= ALIKE for block in blocks):
            yield from _across(equal[left], equal[right], have, shared)


def _across(left: np.ndarray, right: np.ndarray, have: np.ndarray, shared: int) -> Iterator[tuple[int, int]]:
    """Links rows of two sets whose common modalities are exactly ``shared``, each to the first that fits."""
    for one in np.unique(have[left]):
        for other in np.unique(have[right]):
            if one & other == shared:
                some, more = left[have[left] == one], right[have[right] == other]
                yield from ((row, more[0]) for row in some if row != more[0])
                yield from ((some[0], row) for row in more if row != some[0])


def components(edges: Edges | np.ndarray, count: int) -> np.ndarray:
    """int32 [count]: rows that are linked, directly or through others, have the same number."""
    pairs = np.asarray(edges, dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(pairs), dtype=np.int8), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def linked(names: np.ndarray) -> np.ndarray:
    """int64 [E, 2]: links each row to the first with its name; ``names`` are numbers, below zero where there is none.

    Rows without one are linked to none.
    """
    order, starts, sizes = runs(names)
    first = np.repeat(order[starts], sizes)
    here = (names[order] >= 0) & (first != order)
    return np.stack([first[here], order[here]], axis=1)


@dataclass(frozen=True)
class Groups:
    """Groups of rows.

    Attributes:
        codes: int64 [N], the group of each row: a place among the ``names``.
        names: texts, in alphabetical order.
    """

    codes: np.ndarray
    names: pa.Array


def in_alphabet(texts: pa.ChunkedArray) -> tuple[np.ndarray, pa.Array]:
    """int64 [N]: the place of each text among the different ones, -1 for null; and these, in alphabetical order."""
    order = compute.sort_indices(texts).to_numpy()[: len(texts) - texts.null_count]
    place = compute.rank(texts, tiebreaker="dense").to_numpy().astype(np.int64) - 1
    new = np.flatnonzero(np.diff(place[order], prepend=-1))
    distinct = pa.concat_arrays(texts.take(pa.array(order[new])).chunks or [pa.array([], texts.type)])
    place[texts.is_null().to_numpy()] = -1
    return place, distinct


def named_groups(component: np.ndarray, given: pa.ChunkedArray, ids: pa.ChunkedArray) -> Groups:
    """Rows with one number in ``component``, int [N], are a group.

    It takes its alphabetically first given name, or ``post:<first id>`` when none of its rows has one.
    """
    name, names = in_alphabet(given)
    sample, samples = in_alphabet(ids)
    best = np.full(component.max(initial=-1) + 1, len(names) + len(samples))
    np.minimum.at(best, component, np.where(name >= 0, name, len(names) + sample))
    alone = best >= len(names)
    prefix, nothing = (pa.scalar(text, pa.large_string()) for text in ("post:", ""))
    posts = compute.binary_join_element_wise(prefix, samples.take(pa.array(best[alone] - len(names))), nothing)
    chosen = pa.chunked_array([names.take(pa.array(best[~alone])), posts], pa.large_string())
    place, distinct = in_alphabet(chosen)
    place_of = np.empty(len(best), dtype=np.int64)
    place_of[np.concatenate([np.flatnonzero(~alone), np.flatnonzero(alone)])] = place
    return Groups(place_of[component], distinct)


def merge_groups(given: Sequence[str | None], ids: Sequence[str], edges: Edges) -> np.ndarray:
    """One group name a row: rows with the same given group, however it is spelt, and linked rows, are one group.

    They are named as in ``named_groups``.
    """
    keys = firsts(digests(None if name is None else name_key(name) for name in given))
    component = components(np.concatenate([np.asarray(edges, dtype=np.int64).reshape(-1, 2), linked(keys)]), len(ids))
    groups = named_groups(
        component, *(pa.chunked_array([pa.array(names, pa.large_string())]) for names in (given, ids))
    )
    return np.array(groups.names.to_pylist(), dtype=object)[groups.codes]
