"""How many texts are longer than their encoder reads, which is ``embed.text.max_tokens`` tokens of each."""

from collections.abc import Iterable
from itertools import islice
from typing import Any

from pipeline.encoders.text import TextEncoder

COUNTED = 10_000
"""At most so many texts are counted: where all vectors are kept already, to tokenize more would be all the work."""


def count_cut(encoder: TextEncoder, texts: Iterable[str | None]) -> dict[str, Any]:
    """For a metrics file: of how many texts ``counted``, so many are ``cut`` after ``max_tokens``.

    ``texts`` are read as far as they are counted; those that are absent or blank are no texts.
    """
    counted = list(islice((text for text in texts if text is not None and text.strip()), COUNTED))
    return {"max_tokens": encoder.max_tokens, "counted": len(counted), "cut": encoder.cut(counted)}
