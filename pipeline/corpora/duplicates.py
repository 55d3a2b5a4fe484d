"""Which posts or rows are copies of each other: same text, same file, near-identical pictures, texts or vectors.

Copies end in one group, so that none is trained on while its twin is scored.
"""

from array import array
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterator, Mapping, Sequence

import numpy as np
import pandas as pd
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components
from scipy.spatial import cKDTree

from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora.wording import name_key, normalised, one_word_apart, word_count

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
TELLING_WIDTH = 8
"""Vectors of fewer columns are alike by chance."""
ALIKE = 1e-3
"""Vectors are copies when they are no further apart than this share of the typical standardised vector's length."""
PROJECTIONS = 6

Edges = list[tuple[int, int]]


def same_texts(texts: Sequence[str | None], groups: Sequence[str | None]) -> Edges:
    """Links each text to the first that says the same, or nearly so, where that is evidence of a copy and no accident.

    A text of ``SAME_WORDS`` words is a copy, and one that many repost is many copies. A shorter one, a phrase, is a
    copy if it has ``PHRASE_WORDS`` words and stands in ``RARE_GROUPS`` groups at most: the same few words of two users
    may well be a repost, but what many say they say by themselves. Where groups are large, as speakers are, any two of
    them share some rare phrase: if those in several given groups make more links than ``PHRASE_LINKS`` allows, they
    are no copies either. A word or two, or emoji alone, are never a copy: "yeah" in two dialogues is none. Texts of
    ``NEAR_WORDS`` words may differ a little, as in ``near_rows``.

    Args:
        texts: N texts, None where a row has none.
        groups: N given groups (author, dialogue); a row with None is a group of its own.
    """
    plain = [None if text is None else normalised(text) for text in texts]
    groups = [None if name is None else name_key(name) for name in groups]
    held: dict[str, list[int]] = {}
    for at, text in enumerate(plain):
        if text is not None and word_count(text) >= PHRASE_WORDS:
            held.setdefault(text, []).append(at)
    given = {text: len({groups[at] for at in rows} - {None}) for text, rows in held.items()}
    alone = {text: sum(groups[at] is None for at in rows) for text, rows in held.items()}
    phrases = {text for text in held if word_count(text) < SAME_WORDS}
    rare = {text for text in phrases if given[text] + alone[text] <= RARE_GROUPS}
    across = {text for text in rare if given[text] > 1}
    if sum(given[text] - 1 for text in across) > PHRASE_LINKS * len(set(groups) - {None}):
        rare -= across
    copied = (held.keys() - phrases) | rare
    told = [text if text in copied else None for text in plain]
    return sorted({*same_keys(told), *_near_texts(told)})


def same_keys(keys: Sequence[Hashable | None]) -> Edges:
    """Links each row to the first one with its key; rows without a key are linked to none."""
    first: dict[Hashable, int] = {}
    return [(first[key], at) for at, key in enumerate(keys) if key is not None and first.setdefault(key, at) != at]


def near_rows(
    texts: Sequence[str | None], vectors: Mapping[Feature, np.ndarray], present: Mapping[Feature, np.ndarray]
) -> Edges:
    """Pairs of rows of feature corpora that are copies of each other; enough of them to link each copy to its like.

    Two rows are copies when they say the same in at least ``SAME_WORDS`` words, or nearly the same in at least
    ``NEAR_WORDS``, or when all vectors that both have are alike. For two tables, put one under the other.

    Args:
        texts: N texts, None where a row has none.
        vectors: modality → float [N, width], absent rows and values that are no finite numbers anyhow.
        present: modality → bool [N].
    """
    words = [normalised(text) if text is not None else None for text in texts]
    long = [text if text is not None and word_count(text) >= SAME_WORDS else None for text in words]
    return sorted({*same_keys(long), *_near_texts(long), *_alike(vectors, present)})


def near_lines(texts: Sequence[str | None]) -> Edges:
    """Pairs of texts of which a line of one is a copy of a line of the other, as ``near_rows`` finds them."""
    lines = [(at, line) for at, text in enumerate(texts) if text is not None for line in text.split("\n")]
    return between(near_rows([line for _, line in lines], {}, {}), [at for at, _ in lines])


def between(edges: Edges, whole: Sequence[int]) -> Edges:
    """The pairs of wholes of which parts are linked, none with itself; ``whole`` is that of each part."""
    pairs = ((int(whole[a]), int(whole[b])) for a, b in edges)
    return sorted({(min(pair), max(pair)) for pair in pairs if pair[0] != pair[1]})


def _near_texts(texts: Sequence[str | None]) -> Edges:
    """Pairs of different texts of ``NEAR_WORDS`` words that differ in one, or share ``SHINGLES_SHARED`` of shingles.

    Prefix filtering (Chaudhuri, Ganti and Kaushik 2006) finds all of them without comparing all with all: with the
    rarest shingles first, two such sets share one of the first (1 - share) of either.
    """
    first = {text: at for at, text in reversed(list(enumerate(texts))) if text is not None}
    long = {at: text for text, at in first.items() if text.count(" ") >= NEAR_WORDS - 1}
    shingles = {at: _shingles(long[at].split()) for at in _with_recurring(long)}
    frequency = Counter(shingle for some in shingles.values() for shingle in some)
    holders: defaultdict[str, list[int]] = defaultdict(list)
    edges: Edges = []
    for at, some in sorted(shingles.items(), key=lambda item: (len(item[1]), item[0])):
        rarest = sorted(some, key=lambda shingle: (frequency[shingle], shingle))
        prefix = rarest[: len(some) - int(np.ceil(SHINGLES_SHARED * len(some))) + 1]
        for other in {other for shingle in prefix for other in holders[shingle]}:
            if len(shingles[other]) >= SHINGLES_SHARED * len(some):
                shared = len(some & shingles[other])
                if shared >= SHINGLES_SHARED * (len(some) + len(shingles[other]) - shared):
                    edges.append((min(at, other), max(at, other)))
        for shingle in prefix:
            holders[shingle].append(at)
    return edges + one_word_apart(texts, NEAR_WORDS)


def _with_recurring(texts: Mapping[int, str]) -> Iterator[int]:
    """Those texts of which ``SHINGLES_SHARED`` of the shingles stand in another text too; no others can share so many.

    Shingles are counted by their hashes, of which memory holds eight bytes each: few texts are left to be compared.
    """
    hashes, counts = array("q"), array("q")
    for text in texts.values():
        some = _shingles(text.split())
        hashes.extend(map(hash, some))
        counts.append(len(some))
    known = np.frombuffer(hashes, np.int64)
    ordered = np.sort(known)
    recurring = np.unique(ordered[1:][ordered[1:] == ordered[:-1]])
    if not len(recurring):
        return
    place = np.minimum(np.searchsorted(recurring, known), len(recurring) - 1)
    shared = np.concatenate([[0], np.cumsum(recurring[place] == known)])
    sizes = np.frombuffer(counts, np.int64)
    ends = np.cumsum(sizes)
    enough = shared[ends] - shared[ends - sizes] >= SHINGLES_SHARED * sizes
    yield from (at for at, is_enough in zip(texts, enough, strict=True) if is_enough)


def _shingles(words: Sequence[str]) -> set[str]:
    return {" ".join(words[at : at + SHINGLE]) for at in range(len(words) - SHINGLE + 1)}


def _alike(vectors: Mapping[Feature, np.ndarray], present: Mapping[Feature, np.ndarray]) -> Edges:
    """Pairs of rows that are alike in every modality that both have.

    Rows are compared once for each set of modalities that some two rows may have in common.
    """
    names: list[Feature] = [name for name in FEATURES if name in vectors and vectors[name].shape[1] >= TELLING_WIDTH]
    # A vector of zeros is what an extractor gives that found nothing: no evidence of anything.
    said = {name: present[name] & np.nan_to_num(vectors[name]).any(axis=1) for name in names}
    units = {name: _standardised(vectors[name], said[name]) for name in names}
    if not names:
        return []
    have = np.sum([said[name].astype(int) << bit for bit, name in enumerate(names)], axis=0)
    patterns = np.unique(have)
    edges: Edges = []
    for shared in sorted({int(one & other) for one in patterns for other in patterns} - {0}):
        rows = np.flatnonzero((have & shared) == shared)
        blocks = [units[name][rows] for bit, name in enumerate(names) if shared >> bit & 1]
        for left, right in _alike_pairs(blocks, have[rows], shared):
            edges.append((int(rows[min(left, right)]), int(rows[max(left, right)])))
    return edges


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


def components(edges: Edges, count: int) -> np.ndarray:
    """int [count]: rows that are linked, directly or through others, have the same number."""
    left, right = np.array(edges, dtype=int).reshape(-1, 2).T
    graph = coo_array((np.ones(len(left)), (left, right)), shape=(count, count))
    return connected_components(graph, directed=False)[1]


def merge_groups(given: Sequence[str | None], ids: Sequence[str], edges: Edges) -> np.ndarray:
    """One group name a row: rows with the same given group, however it is spelt, and linked rows, are one group.

    A group takes its alphabetically first given name, or ``post:<first id>`` when none of its rows has one.
    """
    keys = [None if name is None else name_key(name) for name in given]
    component = components(edges + same_keys(keys), len(ids))
    names: dict[int, str] = {}
    for part, name, sample in sorted(
        zip(component.tolist(), given, ids, strict=True), key=lambda item: (item[1] is None, item[1] or "", item[2])
    ):
        names.setdefault(part, name if name is not None else f"post:{sample}")
    return np.array([names[part] for part in component.tolist()], dtype=object)
