from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from pipeline.core.schemas import Feature
from pipeline.corpora import duplicates
from pipeline.corpora.duplicates import SHINGLES_SHARED, merge_groups, near_rows, same_texts
from pipeline.corpora.stored_rows import StoredRows
from pipeline.params import Params
from pipeline.posts.copies import find_links
from tests.altered import scene


def test_links_by_what_is_shared(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    scene(2).save(tmp_path / "c.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "x.mp4").write_bytes(b"clip")
    (tmp_path / "y.mp4").write_bytes(b"clip")
    rows = pd.DataFrame(
        {
            "group": [None, "amy", None, "zoe", None],
            "text": ["Hi all there!", "other", None, "hi ALL there", None],
            "image": ["a.png", "b.png", "c.png", "bad.jpg", "missing.jpg"],
            "video": [None, "x.mp4", None, None, "y.mp4"],
        },
        dtype=object,
    ).replace({np.nan: None})
    links = find_links(StoredRows.of(rows), tmp_path, Params(), tmp_path / "cache")
    assert (links.text, links.picture, links.near_picture) == ([(0, 3)], [(0, 1)], [])
    assert (links.clip, links.near_clip) == ([(1, 4)], [])


LONG = "i cannot believe that this has happened again"


def joined(texts: list[str | None], groups: list[str | None]) -> set[str | None]:
    """The texts that are linked."""
    return {texts[at] for pair in links(texts, groups) for at in pair}


def links(texts: Sequence[str | None], groups: Sequence[str | None]) -> list[tuple[int, int]]:
    return same_texts(StoredRows.of(pd.DataFrame({"text": texts, "group": groups}, dtype=object)))


def test_a_long_text_is_a_copy_however_many_repost_it() -> None:
    assert links([LONG] * 40, [None] * 40) == [(0, at) for at in range(1, 40)]
    assert links([LONG] * 40, [f"author {at}" for at in range(40)]) == [(0, at) for at in range(1, 40)]


def test_no_texts_at_all() -> None:
    assert links([], []) == []
    assert links([None, None], [None, "amy"]) == []


def test_a_word_or_two_and_emoji_are_no_copies() -> None:
    texts: list[str | None] = [
        "yeah",
        "Yeah!",
        "me rn",
        "me rn",
        "😂 😂 😂",
        "😂 😂 😂",
        "🙏🙏🙏🙏",
        "🙏🙏🙏🙏",
        None,
        None,
    ]
    assert links(texts, [None] * len(texts)) == []


def test_a_phrase_is_a_copy_where_few_hold_it() -> None:
    phrase = "that was my bus"
    assert joined([phrase, phrase], [None, None]) == {phrase}
    assert joined([phrase, phrase], ["amy", None]) == {phrase}
    assert joined([phrase] * 3, [None] * 3) == {phrase}
    assert joined([phrase] * 4, [None] * 4) == set()
    # Twice by one author is once.
    assert joined([phrase] * 4, ["amy", "amy", "amy", None]) == {phrase}


def test_rare_phrases_of_large_groups_are_no_copies_but_long_texts_are() -> None:
    """Ten speakers of whom any two share a phrase: links by phrases would make them one group."""
    pairs = [(a, b) for a in range(10) for b in range(a)]
    texts = [f"we said it {a} {b}" for a, b in pairs for _ in "ab"] + [LONG, LONG]
    groups: list[str | None] = [f"speaker {one}" for pair in pairs for one in pair]
    assert joined([*texts], [*groups, "speaker 3", "speaker 4"]) == {LONG}
    # The same phrases of people who stand alone join nobody else, and one that only one speaker has is a copy.
    assert len(joined([*texts], [None] * len(texts))) == 46
    assert joined([*texts, "all by myself here", "all by myself here"], [*groups, None, None, "speaker 1", None]) == {
        LONG,
        "all by myself here",
    }


TWELVE = "i cannot believe that this has happened again to them of all people"


def test_altered_copies_of_a_text_are_copies() -> None:
    texts = [
        TWELVE,
        TWELVE.replace("happened", "hap\u200bpened"),
        TWELVE.replace("this", "thís"),
        TWELVE.replace("again", "аgain"),
        f"RT @bob: {TWELVE}",
        TWELVE.replace("them", "us"),
        f"well {TWELVE}",
        TWELVE.replace(" again", ""),
        TWELVE.replace("them", "us").replace("all", "some"),
    ]
    assert {at for pair in links(texts[:-1], [None] * 8) for at in pair} == set(range(8))
    assert links([texts[0], texts[-1]], [None] * 2) == []
    # Eight words may be the same by chance once one of them is changed.
    assert links([LONG, LONG.replace("again", "here")], [None] * 2) == []


def test_authors_are_one_however_they_are_spelt() -> None:
    names = merge_groups(["Bob", "amy", "u/bob", "bob", "@Amy"], list("abcde"), [])
    assert names.tolist() == ["Bob", "@Amy", "Bob", "Bob", "@Amy"]
    phrase = "that was my bus"
    assert joined([phrase] * 4, ["amy", "Amy", "u/amy", None]) == {phrase}


def test_groups_merge_through_chains_of_links_and_given_names() -> None:
    given = ["zoe", None, "amy", None, None, "amy"]
    names = merge_groups(given, ["p0", "p1", "p2", "p3", "p4", "p5"], [(0, 1), (1, 2)])
    assert names.tolist() == ["amy", "amy", "amy", "post:p3", "post:p4", "amy"]


def test_no_links_at_all() -> None:
    assert merge_groups([None, None], ["a", "b"], []).tolist() == ["post:a", "post:b"]


def everywhere(vectors: dict[Feature, np.ndarray]) -> dict[Feature, np.ndarray]:
    return {name: np.ones(len(values), dtype=bool) for name, values in vectors.items()}


def test_the_same_words_are_copies_from_eight_on() -> None:
    seven = "one two three four five six seven"
    texts = [seven, f"{seven} eight", seven, None, "One, two; three four five six seven EIGHT!", "other"]
    assert near_rows(texts, {}, {}) == [(1, 4)]


def test_nearly_the_same_words_equal_a_comparison_of_all_with_all() -> None:
    rng = np.random.default_rng(0)
    words = [f"w{at}" for at in range(300)]
    texts = [" ".join(rng.choice(words, rng.integers(12, 60))) for _ in range(30)]
    for at in range(120):  # copies with some words changed, some words more
        copy = texts[at % 30].split()
        for place in rng.integers(0, len(copy), rng.integers(0, 4)):
            copy[place] = rng.choice(words)
        texts.append(" ".join([*copy, *rng.choice(words, rng.integers(0, 3))]))

    def shingles(text: str) -> set[tuple[str, ...]]:
        some = text.split()
        return {tuple(some[at : at + 3]) for at in range(len(some) - 2)}

    def shorter(text: str) -> set[str]:
        some = text.split()
        return {text, *(" ".join(some[:at] + some[at + 1 :]) for at in range(len(some)))}

    sets, shorts = [shingles(text) for text in texts], [shorter(text) for text in texts]
    slow = {
        (a, b)
        for a in range(len(texts))
        for b in range(a + 1, len(texts))
        if len(sets[a] & sets[b]) >= SHINGLES_SHARED * len(sets[a] | sets[b]) or shorts[a] & shorts[b]
    }
    found = near_rows(texts, {}, {})
    assert set(found) <= slow
    ids = [str(at) for at in range(len(texts))]
    none = [None] * len(texts)
    # Same texts are linked to the first of them only, so that links are compared by what they join.
    assert merge_groups(none, ids, found).tolist() == merge_groups(none, ids, sorted(slow)).tolist()
    assert 20 < len(slow) < 2000


def test_alike_vectors_equal_a_comparison_of_all_with_all() -> None:
    rng = np.random.default_rng(0)
    values = rng.normal(size=(60, 20)) * 10.0 ** rng.integers(-3, 4, 20)
    scale = values.std(axis=0)
    for at in range(30):  # a copy that is off by up to three thousandths of the typical length
        noise = rng.normal(size=20)
        values[30 + at] = values[at] + noise / np.linalg.norm(noise) * at * 1e-4 * np.sqrt(20) * scale
    vectors: dict[Feature, np.ndarray] = {"audio": values.astype(np.float32)}
    found = near_rows([None] * 60, vectors, everywhere(vectors))
    standard = (values - values.mean(axis=0)) / values.std(axis=0)
    standard /= np.median(np.linalg.norm(standard, axis=1))
    apart = np.linalg.norm(standard[:, None] - standard[None], axis=2)
    assert found == [(int(a), int(b)) for a, b in np.argwhere(apart <= 1e-3) if a < b]
    assert 5 < len(found) < 30


def test_rows_are_alike_only_if_all_that_both_have_is() -> None:
    rng = np.random.default_rng(0)
    audio, visual = rng.normal(size=(6, 12)), rng.normal(size=(6, 12))
    audio[1:4] = audio[0]
    visual[1] = visual[0]
    #  0 and 1: both the same; 2: another visual; 3: no visual, so audio alone counts.
    vectors: dict[Feature, np.ndarray] = {"audio": audio, "visual": visual}
    present = everywhere(vectors)
    present["visual"][3] = False
    found = near_rows([None] * 6, vectors, present)
    assert (0, 1) in found
    assert {pair for pair in found if pair != (0, 1)} <= {(0, 3), (1, 3), (2, 3)}
    assert merge_groups([None] * 6, list("012345"), found)[:4].tolist() == ["post:0"] * 4
    assert near_rows([None] * 6, {"audio": audio, "visual": visual}, everywhere(vectors)) == [(0, 1)]


def test_narrow_vectors_zeros_and_gaps_are_no_evidence() -> None:
    rng = np.random.default_rng(0)
    narrow: dict[Feature, np.ndarray] = {"audio": np.ones((5, 7))}
    assert near_rows([None] * 5, narrow, everywhere(narrow)) == []
    wide = rng.normal(size=(6, 9))
    wide[:3] = 0
    wide[4] = wide[5]
    wide[4:, 2] = np.nan
    vectors: dict[Feature, np.ndarray] = {"visual": wide}
    assert near_rows([None] * 6, vectors, everywhere(vectors)) == [(4, 5)]


def test_rows_of_narrow_vectors_are_copies_where_many_numbers_are_equal() -> None:
    rng = np.random.default_rng(0)
    audio, visual = rng.normal(size=(40, 5)), np.column_stack([rng.normal(size=40), rng.integers(1, 4, (40, 5))])
    audio[30], visual[30] = audio[3], visual[3]
    audio[31] = audio[4]  # another visual
    audio[32] = audio[5] + 1e-6
    audio[33], audio[34] = [0, 0, 1, 2, 3], [0, 0, 1, 2, 3]  # three numbers
    visual[35] = visual[6]  # one number, and ratings
    vectors: dict[Feature, np.ndarray] = {"audio": audio, "visual": visual}
    assert near_rows([None] * 40, vectors, everywhere(vectors)) == [(3, 30)]
    assert near_rows([None] * 40, {"audio": audio}, {"audio": np.arange(40) != 3}) == [(4, 31)]
    text = rng.normal(size=(40, 9))  # another text, except where there is none
    text[[3, 30]] = 0
    present = everywhere({**vectors, "text": text})
    assert near_rows([None] * 40, {**vectors, "text": text}, present) == []
    present["text"][[3, 30]] = False
    assert near_rows([None] * 40, {**vectors, "text": text}, present) == [(3, 30)]


def test_a_form_that_very_many_fill_in_is_not_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    """All have the same rarest runs of words, and two further words apart from each other."""
    form = [f"word{at}" for at in range(60)]
    filled = [" ".join(["one", f"first{at}", *form, f"last{at}"]) for at in range(12)]
    none = [None] * 12
    whole = {at for pair in links(filled, none) for at in pair}
    assert whole == set(range(12))
    monkeypatch.setattr(duplicates, "TEMPLATE", 11)
    assert links(filled, none) == []
    assert {at for pair in links(filled[:11], none[:11]) for at in pair} == set(range(11))
