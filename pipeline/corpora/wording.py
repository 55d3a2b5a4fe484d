"""What a text says and what a name is called, free of spelling; and which long texts differ in one word."""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from itertools import accumulate, chain, islice
from pathlib import Path

import numpy as np

from pipeline.corpora.stored_rows import Numbered

UNSPACED = re.compile("[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]")
"""Letters of Thai, Lao, Burmese, Khmer, Japanese and Chinese, which have no spaces between words: two are one word."""
ACCENTS = re.compile("[\u0300-\u036f]")
"""Marks on Latin, Greek and Cyrillic letters. Other scripts write vowels as marks, which must stay."""
HOMOGLYPHS = str.maketrans(
    "авеѕіјкмноԛрстухһԁԝӏαβεηικνορτυχωγıɑɡ",
    "abesijkmhoqpctyxhdwlabenikvoptuxwyiag",
)
"""Small Cyrillic, Greek and other letters that look like Latin ones, small or as capitals (Unicode TR39).

Every text goes through it, so that words which are all Cyrillic stay equal to themselves.
"""
REPOSTED = re.compile(r"rt\s+")
"""What stands before a text that is passed on, once names and punctuation are gone."""

FORM = 5
"""More different texts than this that are one but for a word are no copies of each other."""

TOGETHER = 4096
"""Texts that are looked at together."""

PRIME = 2**61 - 1
BASE = 1_000_003
MIXING = np.uint64(0x9E3779B97F4A7C15)
"""An odd number, so that multiplication loses nothing: 2 ** 64 by the golden ratio (Knuth 1973)."""


def normalised(text: str) -> str | None:
    """Case, width, accents, look-alike letters, invisible signs, links, names, "RT", punctuation and spacing removed.

    None when nothing is left. A text of emoji alone stays as it is: it says something, and says the same in two posts.
    """
    plain = _letters(text)
    plain = re.sub(r"https?://\S+|@\w+", " ", plain)
    words = re.sub(r"[\W_]+", " ", plain).strip()
    while reposted := REPOSTED.match(words):
        words = words[reposted.end() :]
    return words.translate(HOMOGLYPHS) or "".join(plain.split()) or None


def name_key(name: str) -> str:
    """What names of one user have in common: `Bob`, `bob`, `@bob` and `u/Bob` are one."""
    plain = " ".join(_letters(name).split())
    return re.sub(r"^/?u(?:ser)?/(?=.)|^@(?=.)", "", plain).translate(HOMOGLYPHS)


def _letters(text: str) -> str:
    """Compatible forms, case, accents and signs without a width removed (Unicode: NFKD, Cf and variation selectors)."""
    if text.isascii():
        return text.casefold()
    parts = unicodedata.normalize("NFKD", unicodedata.normalize("NFKC", text).casefold())
    shown = "".join(sign for sign in ACCENTS.sub("", parts) if unicodedata.category(sign) != "Cf")
    return unicodedata.normalize("NFC", re.sub("[\ufe00-\ufe0f]", "", shown))


def word_count(plain: str) -> int:
    """Words of a normalised text."""
    return plain.count(" ") + 1 + len(UNSPACED.findall(plain)) // 2


def one_word_apart(texts: Iterable[tuple[int, str]], scratch: Path | None = None) -> list[tuple[int, int]]:
    """Links each normalised text to the first that is the same once a word is taken out of both, or out of one.

    Texts of which a word was changed, added or left out have such a shorter text in common (the deletion neighbourhood
    of Mor and Fraenkel 1982, by words), so that nothing is compared with everything: time follows the words, and memory
    does not. No more than ``FORM`` that have such a text in common are linked: it is a form that many fill in, like
    "day 12 of …".

    Args:
        texts: rows and their texts, all different, by row.
        scratch: where to put what does not fit into memory.
    """
    numbered = Numbered(scratch)
    for some in batched(texts):
        shorter = [(row, _shortened(text.split())) for row, text in some]
        numbers = np.fromiter(chain.from_iterable(numbers_of_text for _, numbers_of_text in shorter), np.int64)
        numbered.add(
            numbers, np.repeat([row for row, _ in shorter], [len(numbers_of_text) for _, numbers_of_text in shorter])
        )
    few = (rows.tolist() for rows in numbered.together() if len(rows) <= FORM)
    return sorted({(first, other) for first, *others in few for other in others})


def batched(texts: Iterable[tuple[int, str]]) -> Iterator[list[tuple[int, str]]]:
    """So many at a time that arrays are worth while."""
    rest = iter(texts)
    while some := list(islice(rest, TOGETHER)):
        yield some


def _shortened(words: Sequence[str]) -> set[int]:
    """A number for the text, and one for what is left of it without each of its words.

    A text's number is a polynomial of its words' numbers (Karp and Rabin 1987), so that leaving one out is an addition;
    that two texts have one number by chance is as likely as 1 in 2 ** 61.
    """
    numbers = [_number(word) for word in words]
    powers = [pow(BASE, at, PRIME) for at in range(len(words))]
    before = list(accumulate((number * power for number, power in zip(numbers, powers, strict=True)), initial=0))
    moved = [number * power for number, power in zip(numbers[1:], powers, strict=False)]
    after = [0, *accumulate(reversed(moved))][::-1]
    return {before[-1] % PRIME} | {(left + right) % PRIME for left, right in zip(before, after, strict=False)}


def _number(word: str) -> int:
    """The same in every process, as Python's own hash is not."""
    return int.from_bytes(word.encode(errors="surrogatepass"), "big") % PRIME


def run_numbers(texts: Sequence[str], length: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [n] each: a number for each run of so many words, and the place of the text that it is of, in their order.

    Two runs have one number by chance in about 2 ** 60; all bits of it tell runs apart.
    """
    words = [text.split() for text in texts]
    known = {word: _number(word) for word in set(chain.from_iterable(words))}
    numbers = np.fromiter((known[word] for word in chain.from_iterable(words)), np.uint64)
    text_of = np.repeat(np.arange(len(words)), [len(some) for some in words])
    count = max(len(numbers) - length + 1, 0)
    mixed = np.zeros(count, dtype=np.uint64)
    for at in range(length):  # modulo 2 ** 64
        mixed = (mixed ^ numbers[at : at + count]) * MIXING
        mixed ^= mixed >> np.uint64(29)
    whole = text_of[:count] == text_of[length - 1 :]  # and not across the end of a text
    return mixed[whole].view(np.int64), text_of[:count][whole]
