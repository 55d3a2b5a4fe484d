import itertools
import random
from collections import Counter

import pytest

from pipeline.corpora.duplicates import merge_groups
from pipeline.corpora.wording import FORM, name_key, normalised, one_word_apart, run_numbers, word_count


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Me RN:", "me rn"),
        ("  me   rn  ", "me rn"),
        ("me rn https://t.co/x @bob", "me rn"),
        ("ＭＥ rn!!", "me rn"),
        ("RT @bob: RT @amy me rn", "me rn"),
        ("m\u200be r\u00adn", "me rn"),
        ("mé rn", "me rn"),
        ("me\u0301 rn", "me rn"),
        ("mе rn", "me rn"),  # a Cyrillic е
        ("RT", "rt"),
        ("😂😂", "😂😂"),
        ("😂\ufe0f😂", "😂😂"),
        ("Straße", "strasse"),
        ("https://t.co/x", None),
        ("がか", "がか"),
    ],
)
def test_normalised(text: str, plain: str | None) -> None:
    assert normalised(text) == plain


def test_words_of_other_letters_stay_apart() -> None:
    assert len({normalised(text) for text in ("они были тут", "оно было тут", "мы были тут", "они пыли тут")}) == 4
    assert normalised("они были") == normalised("ОНИ БЫЛИ")


@pytest.mark.parametrize(
    ("text", "words"),
    [("yeah", 1), ("me rn", 2), ("😂😂😂😂😂😂😂😂😂😂", 1), ("今日はとても楽しかったです", 7), ("สวัสดีตอนเช้า", 7)],
)
def test_words(text: str, words: int) -> None:
    assert word_count(text) == words


def test_names_of_one_user() -> None:
    same = ["Bob", "bob", "BOB ", "u/Bob", "/u/bob", "@Bob", "Bo\u200bb", "Bób", "Воb"]
    assert {name_key(name) for name in same} == {"bob"}
    assert len({name_key(name) for name in ("bob", "bob1", "bo b", "u/", "@", "u", "dialogue 1", "dialogue 11")}) == 8


def test_one_word_apart_equals_a_comparison_of_all_with_all() -> None:
    draw = random.Random(0)
    texts = [" ".join(draw.choices("abcdefghijk", k=draw.randint(3, 6))) for _ in range(150)]
    texts[7] = texts[3]
    first = sorted({text: at for at, text in reversed(list(enumerate(texts)))}.values())

    def shorter(text: str) -> set[str]:
        words = text.split()
        return {text, *(" ".join(words[:at] + words[at + 1 :]) for at in range(len(words)))}

    holders = Counter(form for at in first for form in shorter(texts[at]))
    shorter_of = {at: {form for form in shorter(texts[at]) if holders[form] <= FORM} for at in first}
    slow = {(a, b) for a, b in itertools.combinations(first, 2) if shorter_of[a] & shorter_of[b]}
    fast = one_word_apart([(at, texts[at]) for at in first])
    assert set(fast) <= slow
    ids = [str(at) for at in range(len(texts))]
    none = [None] * len(texts)
    assert merge_groups(none, ids, fast).tolist() == merge_groups(none, ids, sorted(slow)).tolist()
    assert len(slow) > 20


def test_a_form_that_many_fill_in_is_no_copy() -> None:
    texts = [f"day {at} of the journey" for at in range(FORM + 1)]
    assert one_word_apart(enumerate(texts)) == []
    assert one_word_apart(enumerate(texts[:-1])) == [(0, at) for at in range(1, FORM)]


def test_runs_of_words_have_numbers_of_their_own() -> None:
    texts = ["a b c d", "", "a b", "b c d e", "d c b", "c d a b c"]
    runs = [(at, tuple(text.split()[i : i + 3])) for at, text in enumerate(texts) for i in range(len(text.split()) - 2)]
    numbers, places = run_numbers(texts, 3)
    assert places.tolist() == [at for at, _ in runs]
    of: dict[tuple[str, ...], set[int]] = {}
    for number, (_, run) in zip(numbers.tolist(), runs, strict=True):
        of.setdefault(run, set()).add(number)
    assert all(len(same) == 1 for same in of.values()) and len(set(numbers.tolist())) == len(of) == 6
    assert [len(part) for part in run_numbers(["a b"], 3)] == [0, 0]
