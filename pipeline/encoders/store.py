"""Vectors kept between runs, by the digest of what was encoded, for each encoder.

Where a content has nothing of what an encoder reads, as a clip without a face, the reason is kept in place of a vector,
so that it is not looked for again. What is said in a clip is kept likewise.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pipeline.core.content_store import ABSENT, WORDS, ContentStore
from pipeline.core.errors import InputError
from pipeline.core.files import MediaError


class Store(ContentStore):
    """A map from content digests to vectors, float32 [width], or why there is none.

    Args:
        folder: where the files of all encoders lie; created when missing.
        identity: the encoder's identity; its ``width`` is the length of every vector.

    Raises:
        InputError: as ``ContentStore``.
    """

    def __init__(self, folder: Path, identity: dict[str, Any]) -> None:
        super().__init__(folder, identity, "vectors")
        self.width = int(identity["width"])

    def get(self, keys: Sequence[str]) -> dict[str, np.ndarray]:
        """The vectors of those keys that are there, undamaged; they are read-only."""
        blobs = self.blobs(keys)
        right = {key: blob for key, blob in blobs.items() if len(blob) == 4 * self.width}
        self.remove(blobs.keys() - right.keys())
        return {key: np.frombuffer(blob, dtype="<f4") for key, blob in right.items()}

    def absent(self, keys: Sequence[str]) -> dict[str, MediaError]:
        """Why those of the keys have no vector of which that is known."""
        return {key: MediaError(blob.decode()) for key, blob in self.blobs(keys, ABSENT).items()}

    def words(self, keys: Sequence[str]) -> dict[str, bytes]:
        """What was put under those of the keys by ``put_words``."""
        return self.blobs(keys, WORDS)

    def put(self, vectors: Mapping[str, np.ndarray]) -> None:
        """Keeps the vectors, all or none; a key that another process put meanwhile stays as it is.

        Raises InputError also where one is not finite.
        """
        if not all(np.isfinite(vector).all() for vector in vectors.values()):
            raise InputError(
                "the encoder made a vector with a value that is not finite; choose another in params embed"
            )
        self.keep({key: np.ascontiguousarray(vector, dtype="<f4").tobytes() for key, vector in vectors.items()})

    def put_absent(self, reasons: Mapping[str, MediaError]) -> None:
        """Keeps why contents have no vector, and never will have."""
        self.keep({key: str(reason).encode() for key, reason in reasons.items()}, ABSENT)

    def put_words(self, words: Mapping[str, bytes]) -> None:
        """Keeps what is said in contents, as its maker packed it."""
        self.keep(words, WORDS)
