"""A column or a field that is likely another spelling of one that is read: passed over, it would be lost in silence."""

import unicodedata
from collections.abc import Collection, Sequence
from difflib import get_close_matches

ALIKE = 0.8
"""How like a modality's name one must be (1: the same) to be one that was misspelt: `txt` is, `video_id` is not."""

SHOWN = 40
"""Letters of a name in a message."""


def misspelt(names: Collection[str], modalities: Sequence[str], others: Sequence[str] = ()) -> str | None:
    """What to say of the first name that is likely one of these, which is not given; None where there is none.

    Args:
        modalities: may have a letter more, less or in another place.
        others: such as ``id``, of which too much is like them to be counted; only case, width and blanks may differ.
    """
    for name in names:
        plain = unicodedata.normalize("NFKC", name).strip().casefold()
        near = [known for known in get_close_matches(plain, modalities, 1, ALIKE) if abs(len(known) - len(plain)) < 2]
        for known in [*near, *(other for other in others if other == plain)]:
            if known not in names:
                return f"{name[:SHOWN]!r}; is {known!r} meant?"
    return None
