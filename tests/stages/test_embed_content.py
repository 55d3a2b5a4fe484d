"""A vector is a function of its content alone: not of what was kept, of the order, of batches or of threads.

The packaged encoders compute, because tiny ones never reach the paths of the library that round differently.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.core import artifacts, schemas
from pipeline.core.layout import Layout
from pipeline.encoders import text
from pipeline.encoders.text import LEAST_TOKENS, TextEncoder
from pipeline.params import EmbedTextParams, Params
from pipeline.stages import embed
from tests.processors import skip_without

POSTS = 60
PICTURES = 11
CLIPS = 5
WORDS = ("so", "happy", "today", "rain", "again", "nobody", "unbelievable", "!", "☃", "thanks")


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for at in range(PICTURES):
        Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)).save(tmp_path / f"{at}.png")
    for at in range(CLIPS):
        frames = [Image.fromarray(rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)) for _ in range(1 + 2 * at)]
        frames[0].save(tmp_path / f"clip{at}.gif", save_all=True, append_images=frames[1:], duration=100)
    return Layout(tmp_path)


def write_posts(layout: Layout, order: np.ndarray) -> None:
    """Texts of 1 to 60 words, pictures and clips of 1 to 9 frames; ``order`` says which content has which place."""
    rows = [
        {
            "sample_id": f"p{place:02}",
            "text": " ".join(WORDS[(of * 7 + at * at) % len(WORDS)] for at in range(1 + of)),
            "image_path": f"{of}.png" if of < PICTURES else None,
            "video_path": f"clip{of}.gif" if of < CLIPS else None,
        }
        for place, of in enumerate(order)
    ]
    frame = pd.DataFrame(rows).assign(split="train", label="Joy")
    frame["group_id"] = frame["sample_id"]
    table = pa.Table.from_pandas(frame, schema=schemas.POSTS_TABLE, preserve_index=False)
    artifacts.write_parquet(layout.table("posts"), table)
    artifacts.write_parquet(layout.table("target"), schemas.SCORED_TABLE.empty_table())  # the track is off


def embedded(layout: Layout, **changes: object) -> dict[str, dict[str, bytes]]:
    """Modality → digest of the content → the bytes of its vector."""
    settings = {"posts": {"media": "."}, "device": "cpu", "embed": changes}
    embed.run(Params.model_validate(settings), layout)
    made: dict[str, dict[str, bytes]] = {}
    for modality in schemas.MODALITIES:
        rows = pq.read_table(layout.embeddings("posts", modality)).to_pylist()
        made[modality] = {row["content"]: np.float32(row["vector"]).tobytes() for row in rows if row["content"]}
    return made


def forget_half(layout: Layout) -> int:
    """Deletes every second vector, by an order that has nothing to do with them; returns how many."""
    removed = 0
    for path in sorted((layout.cache / "embeddings").glob("*.sqlite")):
        with sqlite3.connect(path) as connection:
            keys = sorted(key for (key,) in connection.execute("SELECT key FROM checked"))
            connection.executemany("DELETE FROM checked WHERE key = ?", [(key,) for key in keys[::2]])
            removed += len(keys[::2])
    return removed


def test_half_a_store_another_order_other_batches_and_threads_give_the_same_bytes(layout: Layout) -> None:
    torch.set_num_threads(1)
    write_posts(layout, np.arange(POSTS))
    whole = embedded(layout)
    assert {name: len(of) for name, of in whole.items()} == {"text": POSTS, "image": PICTURES, "video": CLIPS}
    assert forget_half(layout) >= (POSTS + PICTURES + CLIPS) // 2
    torch.set_num_threads(2)
    write_posts(layout, np.random.default_rng(1).permutation(POSTS))
    other = embedded(layout, text={"batch_tokens": 200}, image={"batch": 3}, video={"batch": 8})
    assert other == whole


@pytest.fixture(scope="module", params=["torch fp32", "torch bf16", "openvino fp32", "openvino bf16"])
def encoder(request: pytest.FixtureRequest) -> TextEncoder:
    runtime, precision = request.param.split()
    skip_without(runtime, precision)
    return text.load(EmbedTextParams(runtime=runtime, precision=precision))


@pytest.mark.parametrize("length", [3, 4, 7, 8, 15, 16, 17, 31, 33, 64])
def test_a_text_has_the_same_vector_in_batches_of_any_size(encoder: TextEncoder, length: int) -> None:
    device = torch.device("cpu")
    torch.set_num_threads(1)
    rng = np.random.default_rng(length)
    row = rng.integers(1000, 20000, length).tolist()
    alone = encoder.encode_tokens([row], device, least_tokens=LEAST_TOKENS)[0]
    for size in (2, 3, 5, 8, 17, 33):
        rows = [rng.integers(1000, 20000, length).tolist() for _ in range(size)]
        at = int(rng.integers(size))
        rows[at] = row
        together = encoder.encode_tokens(rows, device, least_tokens=LEAST_TOKENS)
        assert together[at].tobytes() == alone.tobytes(), size
