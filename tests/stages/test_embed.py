import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image

from pipeline.core import artifacts, schemas
from pipeline.core.errors import InputError
from pipeline.core.files import content_digest
from pipeline.core.layout import Layout
from pipeline.encoders import embedding, image, sound_features, streams, text, video
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.streams import per_group, slices
from pipeline.encoders.text import TextEncoder
from pipeline.media.clips import Clip, read_clip, read_frames
from pipeline.media.pictures import read_picture
from pipeline.params import (
    EmbedImageParams,
    EmbedParams,
    EmbedTextParams,
    EmbedVideoParams,
    Params,
    PostsParams,
    SourceParams,
    TargetParams,
)
from pipeline.stages import embed
from tests import tiny
from tests.encoders.test_sound_features import clip as sounding
from tests.encoders.test_sound_features import tone

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def encoders(tmp_path_factory: pytest.TempPathFactory) -> EmbedParams:
    """Tiny encoders; batches small enough that a few rows need several."""
    words, clip = tiny.distilbert(tmp_path_factory.mktemp("words")), tiny.clip(tmp_path_factory.mktemp("clip"))
    return EmbedParams(
        text=EmbedTextParams(encoder=str(words), batch_tokens=64),
        image=EmbedImageParams(encoder=str(clip), batch=2),
        video=EmbedVideoParams(encoder=str(clip), batch=4, frames=3, streams=("frames",)),
        max_bad_share=0.5,
    )


def params(encoders: EmbedParams, **changes: object) -> Params:
    return Params(
        device="cpu",
        posts=PostsParams(media="media"),
        source=SourceParams(corpus="source.parquet"),
        target=TargetParams(corpus="target.parquet"),
        embed=encoders.model_copy(update=changes),
    )


def draw(path: Path, colour: tuple[int, int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (50, 40), colour).save(path)


def animate(path: Path, colours: Sequence[tuple[int, int, int]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    frames = [Image.new("RGB", (40, 40), colour) for colour in colours]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=100)


ROWS = [
    # id, text, picture, clip
    ("p0", "i am so happy", "a.png", None),
    ("p1", None, "b.png", "clips/x.png"),
    ("p2", "   ", "copy of a.png", None),
    ("p3", "sad", None, "clips/y.png"),
    ("p4", "i am so happy", "broken.png", "clips/x.png"),
    ("p5", "the dog is angry", "missing.png", None),
    ("p6", "me rn", "c.png", None),
]


def project(root: Path, rows: Sequence[tuple[str, str | None, str | None, str | None]] = ROWS) -> Layout:
    folder = root / "media"
    draw(folder / "a.png", (200, 0, 0))
    draw(folder / "b.png", (0, 200, 0))
    draw(folder / "c.png", (0, 0, 200))
    draw(folder / "copy of a.png", (200, 0, 0))
    (folder / "broken.png").write_bytes((folder / "a.png").read_bytes()[:60])
    animate(folder / "clips" / "x.png", [(0, 0, 0), (250, 250, 250)])
    animate(folder / "clips" / "y.png", [(9, 9, 9), (99, 99, 99), (50, 50, 50), (200, 20, 2)])
    layout = Layout(root)
    frame = pd.DataFrame(rows, columns=["sample_id", "text", "image_path", "video_path"])
    frame = frame.assign(group_id=frame["sample_id"], split="train", label="Joy")
    artifacts.write_parquet(
        layout.table("posts"), pa.Table.from_pandas(frame, schema=schemas.POSTS_TABLE, preserve_index=False)
    )
    for name in ("source", "target"):
        corpus(layout, name, [{"id": str(at), "score": 0.5, "audio": [at, 1.0 - at * at]} for at in range(3)])
    return layout


def corpus(layout: Layout, name: str, rows: Sequence[dict[str, Any]], level: str = "row") -> None:
    """A corpus and its sample table, as `split` would write them; rows without ``split`` are train."""
    pq.write_table(pa.Table.from_pylist(list(rows)), layout.root / f"{name}.parquet")
    frame = pd.DataFrame([{"split": "train", "group": row["id"], "text": None} | row for row in rows])
    ids = frame["group"] if level == "group" else frame["id"]
    table = pd.DataFrame({"sample_id": ids, "group_id": frame["group"], "split": frame["split"], "given_split": None})
    table["given_group"] = frame["group"]
    words = frame["text"].map(lambda value: value if isinstance(value, str) else None)
    table = table.assign(score=frame["score"], text=words).drop_duplicates("sample_id").sort_values("sample_id")
    artifacts.write_parquet(
        layout.table(name),
        pa.Table.from_pandas(table[schemas.SCORED_TABLE.names], schema=schemas.SCORED_TABLE, preserve_index=False),
    )


def rows_of(layout: Layout, modality: schemas.Modality) -> pd.DataFrame:
    rows = pq.read_table(layout.embeddings("posts", modality)).to_pylist()
    return pd.DataFrame(rows, dtype=object).set_index("sample_id")


def test_every_row_has_the_vector_of_its_own_content(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    embed.run(params(encoders), layout)
    folder = tmp_path / "media"

    texts = rows_of(layout, "text")
    assert list(texts.index) == [row[0] for row in ROWS]
    expected = text.load(encoders.text).encode(["sad"], CPU)[0]
    np.testing.assert_allclose(texts["vector"]["p3"], expected, atol=1e-6)
    assert texts["reason"].tolist() == [None, "none", "empty", None, None, None, None]

    pictures, encoder = rows_of(layout, "image"), image.load(encoders.image)
    pixels = encoder.preprocess(read_picture(folder / "b.png", max_pixels=10_000))
    np.testing.assert_allclose(pictures["vector"]["p1"], encoder.encode(pixels[None], CPU)[0], atol=1e-5)
    assert pictures["content"]["p1"] == content_digest(folder / "b.png")
    assert pictures["reason"].tolist() == [None, None, None, "none", "truncated", "file not found", None]

    clips, whole = rows_of(layout, "video"), video.load(encoders.video)
    frames = read_frames(folder / "clips" / "y.png", frames=3, max_pixels=10_000)
    expected = whole.encode([np.stack([whole.preprocess(frame) for frame in frames])], CPU)[0]
    assert len(frames) == 3
    np.testing.assert_allclose(clips["vector"]["p3"], expected, atol=1e-5)


def test_absent_rows_are_zeros_without_content(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    embed.run(params(encoders), layout)
    for modality in schemas.MODALITIES:
        found = artifacts.read_embeddings(layout.embeddings("posts", modality))
        assert not found.vectors[~found.present].any()
        assert (found.vectors[found.present] != 0).any(axis=1).all()
        assert [value is None for value in found.content] == (~found.present).tolist()


def test_metrics_count_rows_and_reasons(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    embed.run(params(encoders), layout)
    report = json.loads(layout.details("embed").read_text())
    assert report["image"] == {
        "rows": 7,
        "present": 4,
        "absent": 1,
        "unreadable": 2,
        "bad_share": 0.333333,
        "reasons": {"file not found": 1, "none": 1, "truncated": 1},
        "width": tiny.CLIP_WIDTH,
        "encoder": Path(encoders.image.encoder).name,
    }
    assert report["text"]["reasons"] == {"empty": 1, "none": 1}
    assert report["text"]["bad_share"] == 0
    assert report["video"]["width"] == 2 * tiny.CLIP_WIDTH


def test_texts_that_are_not_read_to_their_end_are_counted_and_said(
    tmp_path: Path, encoders: EmbedParams, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = project(tmp_path)
    words = ["sad " * 9, "i am so happy", None, "the cat", "the cat " * 40, "me rn"]
    corpus(layout, "target", [row | {"text": text} for row, text in zip(feature_rows(6), words, strict=True)])
    embed.run(params(encoders.model_copy(update={"text": encoders.text.model_copy(update={"max_tokens": 8})})), layout)
    report = json.loads(layout.details("embed").read_text())
    assert [report["target"]["text"][name] for name in ("max_tokens", "counted", "cut")] == [8, 5, 2]
    assert [report["text"][name] for name in ("max_tokens", "cut")] == [8, 0]
    said = capsys.readouterr().err
    assert "embed: target.text: 2 of 5 texts have more than 8 tokens, and the rest is not read;" in said
    assert "embed: text:" not in said


@pytest.fixture
def encoded(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many texts and pictures each call encoded."""
    calls: list[int] = []
    tokens, pixels = TextEncoder.encode_tokens, ImageEncoder.encode

    def encode_tokens(
        self: TextEncoder, batch: Sequence[list[int]], device: torch.device, *, least_tokens: int = 0
    ) -> np.ndarray:
        calls.append(len(batch))
        return tokens(self, batch, device, least_tokens=least_tokens)

    def encode(self: ImageEncoder, batch: np.ndarray, device: torch.device, *, fixed: bool = False) -> np.ndarray:
        calls.append(len(batch))
        return pixels(self, batch, device, fixed=fixed)

    monkeypatch.setattr(TextEncoder, "encode_tokens", encode_tokens)
    monkeypatch.setattr(ImageEncoder, "encode", encode)
    return calls


def test_one_content_is_encoded_once_and_never_again(tmp_path: Path, encoders: EmbedParams, encoded: list[int]) -> None:
    layout = project(tmp_path)
    embed.run(params(encoders), layout)
    # Four different texts, three pictures (one has a copy), two clips of two and three frames.
    assert sum(encoded) == 4 + 3 + 2 + 3
    first = layout.embeddings("posts", "image").read_bytes()
    encoded.clear()
    embed.run(params(encoders), layout)
    assert encoded == []
    assert layout.embeddings("posts", "image").read_bytes() == first
    # A new post costs only itself.
    embed.run(params(encoders), project(tmp_path / "other", [*ROWS, ("p7", "today the cat", None, None)]))
    assert encoded == [1]


def test_a_changed_file_is_encoded_anew(tmp_path: Path, encoders: EmbedParams, encoded: list[int]) -> None:
    layout = project(tmp_path)
    embed.run(params(encoders), layout)
    before = rows_of(layout, "image")["vector"]["p1"]
    encoded.clear()
    draw(tmp_path / "media" / "b.png", (7, 77, 177))
    embed.run(params(encoders), layout)
    assert encoded == [1]
    assert np.abs(np.subtract(rows_of(layout, "image")["vector"]["p1"], before)).max() > 1e-3


def test_a_killed_run_goes_on_where_it_was(
    tmp_path: Path, encoders: EmbedParams, encoded: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = project(tmp_path)
    counted = ImageEncoder.encode

    def dies(self: ImageEncoder, batch: np.ndarray, device: torch.device, *, fixed: bool) -> np.ndarray:
        if len(encoded) == 4:  # texts of three lengths, then the first two pictures
            raise KeyboardInterrupt
        return counted(self, batch, device, fixed=fixed)

    with monkeypatch.context() as patch:
        patch.setattr(ImageEncoder, "encode", dies)
        with pytest.raises(KeyboardInterrupt):
            embed.run(params(encoders), layout)
    assert not layout.embeddings("posts", "image").exists()
    assert encoded == [2, 1, 1, 2]
    encoded.clear()
    embed.run(params(encoders), layout)
    assert encoded == [1, 2, 3]  # the third picture, then the clips of two and three frames


def test_chunks_do_not_change_the_tables(
    tmp_path: Path, encoders: EmbedParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole, cut = project(tmp_path / "whole"), project(tmp_path / "cut")
    embed.run(params(encoders), whole)
    monkeypatch.setattr(embedding, "CHUNK", 2)
    monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / "another cache"))
    embed.run(params(encoders), cut)
    for modality in schemas.MODALITIES:
        one, other = rows_of(whole, modality), rows_of(cut, modality)
        np.testing.assert_allclose(one["vector"].tolist(), other["vector"].tolist(), atol=1e-5)
        pd.testing.assert_frame_equal(one.drop(columns="vector"), other.drop(columns="vector"))
    assert whole.details("embed").read_text() == cut.details("embed").read_text()


def test_two_fresh_runs_write_the_same_bytes(
    tmp_path: Path, encoders: EmbedParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []
    for name in ("one", "two"):
        monkeypatch.setenv("EMOCARE_CACHE", str(tmp_path / f"cache {name}"))
        layout = project(tmp_path / name)
        embed.run(params(encoders, workers=3), layout)
        files = [layout.details("embed"), *(layout.embeddings("posts", modality) for modality in schemas.MODALITIES)]
        written.append([file.read_bytes() for file in files])
    assert written[0] == written[1]


def test_too_many_unreadable_files_end_the_stage_in_one_line(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    with pytest.raises(InputError) as error:
        embed.run(params(encoders, max_bad_share=0.3), layout)
    assert str(error.value) == (
        "image: 2 of 6 files (33.3%) cannot be read, more than embed.max_bad_share, 30.0%; "
        "the first: broken.png (truncated), missing.png (file not found)"
    )
    folder = layout.embeddings("posts", "image").parent
    assert [path.name for path in folder.iterdir()] == ["text.parquet"]
    assert not layout.details("embed").exists()


def test_no_path_leads_out_of_the_media_folder(tmp_path: Path, encoders: EmbedParams) -> None:
    draw(tmp_path / "secret.png", (1, 2, 3))
    names = ["a.png", "../secret.png", str(tmp_path / "secret.png"), "clips/../a.png"]
    if os.name == "posix":
        names.append("link.png")
    layout = project(tmp_path, [(f"p{at}", None, name, None) for at, name in enumerate(names)])
    if os.name == "posix":
        (tmp_path / "media" / "link.png").symlink_to(tmp_path / "secret.png")
    embed.run(params(encoders, max_bad_share=1.0), layout)
    outside = "path leads out of posts.media"
    assert rows_of(layout, "image")["reason"].tolist() == [None, outside, outside, None, outside][: len(names)]


def test_modalities_that_are_wholly_absent_have_their_width(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path, [("p0", "sad", None, None), ("p1", "me rn", None, None)])
    embed.run(params(encoders, max_bad_share=0.0), layout)
    found = artifacts.read_embeddings(layout.embeddings("posts", "video"))
    assert found.vectors.shape == (2, 2 * tiny.CLIP_WIDTH)
    assert not found.present.any()
    assert found.encoder["streams"]["frames"]["frames"] == 3


def test_oversized_pictures_are_absent(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path, [("p0", None, "large.png", None), ("p1", None, "a.png", None)])
    Image.new("RGB", (300, 300)).save(tmp_path / "media" / "large.png")
    embed.run(params(encoders, max_pixels=65_536), layout)
    assert rows_of(layout, "image")["reason"].tolist() == [
        "too large: 300x300 px, at most 65536 pixels are allowed",
        None,
    ]
    assert json.loads(layout.details("embed").read_text())["image"]["reasons"] == {"too large": 1}


def test_a_lower_limit_of_pixels_holds_for_what_was_embedded_before(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path, [("p0", None, "large.png", "large.png"), ("p1", None, "a.png", None)])
    Image.new("RGB", (300, 300)).save(tmp_path / "media" / "large.png")
    embed.run(params(encoders), layout)
    assert rows_of(layout, "image")["reason"].tolist() == [None, None]
    embed.run(params(encoders, max_pixels=65_536, max_bad_share=1.0), layout)
    refused = "too large: 300x300 px, at most 65536 pixels are allowed"
    assert rows_of(layout, "image")["reason"].tolist() == [refused, None]
    assert rows_of(layout, "video")["reason"].tolist() == [refused, "none"]


# --- source and target ---------------------------------------------------------------------------------------------


def feature_rows(count: int, **more: Any) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    return [
        {"id": f"r{at}", "group": f"v{at // 3}", "score": 0.5, "audio": rng.normal(size=4).tolist()} | more
        for at in range(count)
    ]


def test_features_are_cleaned_in_the_order_of_the_sample_table(tmp_path: Path, encoders: EmbedParams) -> None:
    layout, rows = project(tmp_path), feature_rows(24)
    for at, row in enumerate(rows):
        row["audio"][1] = 7.5 if at < 20 else at  # varies in the test part alone
        row["visual"] = [float(at * at % 7)]  # so that no row is without anything
        row["split"] = "train" if at < 20 else "test"
    rows[3]["audio"][2] = rows[22]["audio"][2] = float("nan")
    rows[5]["audio"] = None
    corpus(layout, "target", rows)
    embed.run(params(encoders, max_nonfinite_share=0.1), layout)
    found = artifacts.read_embeddings(layout.embeddings("target", "audio"))
    table = artifacts.read_scored(layout.table("target"))
    assert found.sample_ids.tolist() == table["sample_id"].tolist() != [row["id"] for row in rows]
    by_id = dict(zip(found.sample_ids, found.vectors, strict=True))
    for at in (0, 11, 23):
        np.testing.assert_array_equal(by_id[f"r{at}"], np.array(rows[at]["audio"], np.float32)[[0, 2, 3]])
    known = [row["audio"][2] for at, row in enumerate(rows[:20]) if at not in (3, 5)]
    assert by_id["r3"][1] == by_id["r22"][1] == np.median(np.array(known, np.float32))
    assert not by_id["r5"].any()
    assert found.sample_ids[~found.present].tolist() == ["r5"]
    assert [value is None for value in found.content] == (~found.present).tolist()
    rest = {"name": "features", "width": 3, "dropped": {"constant": 1}, "columns": [0, 2, 3], "of": 4}
    seen = np.array([row["audio"] for at, row in enumerate(rows[:20]) if at != 5], np.float32)
    assert found.encoder == {**rest, "fill": np.nanmedian(seen, axis=0)[[0, 2, 3]].tolist()}
    assert json.loads(layout.details("embed").read_text())["target"]["audio"] == {
        "rows": 24,
        "present": 23,
        "width": 3,
        "dropped": {"constant": 1},
        "dropped_columns": "audio[1]: constant",
        "filled": 2,
        "encoder": "features",
    }


def pair(root: Path, encoders: EmbedParams, columns: Sequence[str] = (), too: Sequence[str] = ()) -> Layout:
    """A source and a target of 24 rows: with named columns of audio, or with lists of four numbers where none is named.

    In the target the second column is constant.
    """
    layout, made = project(root), {}
    for name, named, seed in (("source", columns, 0), ("target", too, 1)):
        values = np.random.default_rng(seed).normal(size=(24, 4))
        values[:, 1] = 5.0 if name == "target" else values[:, 1]
        rows = [row | {"audio": of.tolist()} for row, of in zip(feature_rows(24), values, strict=True)]
        corpus(layout, name, rows)
        if named:
            made = pd.DataFrame(rows).drop(columns="audio")
            for at, column in enumerate(named):
                made[f"audio.{column}"] = values[:, at]
            made.to_parquet(layout.root / f"{name}.parquet", index=False)
    return layout


def columns_of(layout: Layout) -> tuple[list[int], list[int], bool]:
    """Those of audio that source and target keep, and whether the target's table says that they are the source's."""
    source, target = (
        artifacts.read_embeddings(layout.embeddings(name, "audio")).encoder for name in ("source", "target")
    )
    return source["columns"], target["columns"], target.get("as_source", False)


NAMED = ["f0.mean", "f0.std", "level.mean", "jitter"]


@pytest.mark.parametrize(
    ("columns", "too", "alike"),
    [
        (NAMED, NAMED, True),
        (NAMED, NAMED[::-1], False),
        (NAMED, ["f0.mean", "f0.std", "level.mean", "shimmer"], False),
        (["c0", "c1", "c2", "c3"], ["c0", "c1", "c2", "c3"], False),
    ],
)
def test_equal_names_of_columns_say_that_one_extractor_made_both(
    tmp_path: Path, encoders: EmbedParams, columns: Sequence[str], too: Sequence[str], alike: bool
) -> None:
    layout = pair(tmp_path, encoders, columns, too)
    embed.run(params(encoders), layout)
    assert columns_of(layout) == (([0, 2, 3], [0, 2, 3], True) if alike else ([0, 1, 2, 3], [0, 2, 3], False))


def test_lists_are_those_of_the_source_where_that_is_said(
    tmp_path: Path, encoders: EmbedParams, capsys: pytest.CaptureFixture[str]
) -> None:
    layout = pair(tmp_path, encoders)
    embed.run(params(encoders), layout)
    assert columns_of(layout) == ([0, 1, 2, 3], [0, 2, 3], False)
    assert "embed: audio has 4 columns in source and target; if one extractor made both" in capsys.readouterr().err
    said = {"target": TargetParams(corpus="target.parquet", as_source=("audio",))}
    embed.run(params(encoders).model_copy(update=said), layout)
    assert columns_of(layout) == ([0, 2, 3], [0, 2, 3], True)
    assert "as_source" not in capsys.readouterr().err
    visual = {"target": TargetParams(corpus="target.parquet", as_source=("visual",))}
    with pytest.raises(InputError, match=r"target\.as_source: source and target do not both have visual"):
        embed.run(params(encoders).model_copy(update=visual), layout)
    corpus(layout, "target", [row | {"audio": row["audio"][:3]} for row in feature_rows(24)])
    with pytest.raises(InputError, match=r"target\.as_source: audio is not the same in both: 4 columns and 3 columns"):
        embed.run(params(encoders).model_copy(update=said), layout)


def test_modalities_that_a_corpus_lacks_or_leaves_out_are_absent(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    rows = [row | {"visual": row["audio"][:2]} for row in feature_rows(6)]
    corpus(layout, "source", rows)
    corpus(layout, "target", rows)
    settings = params(encoders).model_copy(
        update={"target": TargetParams(corpus="target.parquet", modalities=("visual",))}
    )
    embed.run(settings, layout)
    widths = {
        (name, modality): artifacts.read_embeddings(layout.embeddings(name, modality)).vectors.shape
        for name in ("source", "target")
        for modality in schemas.FEATURES
    }
    assert widths == {
        ("source", "text"): (6, 1),
        ("source", "audio"): (6, 4),
        ("source", "visual"): (6, 2),
        ("target", "text"): (6, 1),
        ("target", "audio"): (6, 1),
        ("target", "visual"): (6, 2),
    }
    absent = pq.read_table(layout.embeddings("target", "audio")).to_pydict()
    assert (absent["present"], absent["reason"], absent["vector"]) == ([False] * 6, ["none"] * 6, [[0.0]] * 6)
    assert artifacts.read_embeddings(layout.embeddings("target", "audio")).encoder["name"] == "none"


def test_words_are_encoded_like_those_of_posts(tmp_path: Path, encoders: EmbedParams, encoded: list[int]) -> None:
    layout = project(tmp_path)
    words = ["SAD", "i am so happy", None, "the cat", "the cat", "me rn"]
    corpus(layout, "target", [row | {"text": text} for row, text in zip(feature_rows(6), words, strict=True)])
    embed.run(params(encoders), layout)
    found = artifacts.read_embeddings(layout.embeddings("target", "text"))
    expected = text.load(encoders.text).encode(["sad", "the cat"], CPU)
    np.testing.assert_allclose(found.vectors[[0, 3]], expected, atol=1e-6)
    assert found.present.tolist() == [True, True, False, True, True, True]
    assert found.encoder["name"] == artifacts.read_embeddings(layout.embeddings("posts", "text")).encoder["name"]
    # Of the target's texts all but one are texts of posts, and have been encoded.
    posts = artifacts.read_embeddings(layout.embeddings("posts", "text"))
    assert found.content[0] == posts.content[3]
    of_text = json.loads(layout.details("embed").read_text())["target"]["text"]
    assert [of_text[name] for name in ("present", "counted", "cut")] == [5, 5, 0]
    encoded.clear()
    embed.run(params(encoders), layout)
    assert encoded == []


def test_groups_have_the_mean_of_their_rows(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    words = ["sad", "the cat", None, "me rn", None, None, None, None, None]
    rows = [row | {"text": text} for row, text in zip(feature_rows(9), words, strict=True)]
    rows[1]["audio"] = None
    rows[2]["audio"][0] = float("nan")
    corpus(layout, "target", rows, level="group")
    grouped = TargetParams(corpus="target.parquet", level="group")
    embed.run(params(encoders, max_nonfinite_share=0.2).model_copy(update={"target": grouped}), layout)
    found = artifacts.read_embeddings(layout.embeddings("target", "audio"))
    assert found.sample_ids.tolist() == ["v0", "v1", "v2"]
    first, third = np.array(rows[0]["audio"]), np.array(rows[2]["audio"])
    np.testing.assert_allclose(found.vectors[0], [first[0], *(first + third)[1:] / 2], rtol=1e-6)
    np.testing.assert_allclose(found.vectors[2], np.mean([row["audio"] for row in rows[6:]], axis=0), rtol=1e-6)
    found = artifacts.read_embeddings(layout.embeddings("target", "text"))
    expected = text.load(encoders.text).encode(["sad", "the cat", "me rn"], CPU)
    np.testing.assert_allclose(found.vectors[:2], [expected[:2].mean(axis=0), expected[2]], atol=1e-6)
    assert found.present.tolist() == [True, True, False]
    assert found.encoder["level"] == "group"


def test_a_time_stamp_is_seen_before_groups_are_averaged(tmp_path: Path, encoders: EmbedParams) -> None:
    layout, rows = project(tmp_path), feature_rows(60)
    for at, row in enumerate(rows):
        row["group"] = f"v{at // 6}"
        row["audio"][0] = at % 6 + 0.3
    corpus(layout, "target", rows, level="group")
    grouped = TargetParams(corpus="target.parquet", level="group")
    embed.run(params(encoders).model_copy(update={"target": grouped}), layout)
    found = artifacts.read_embeddings(layout.embeddings("target", "audio"))
    assert found.encoder["dropped"] == {"time-like": 1}
    assert found.vectors.shape == (10, 3)


def test_features_without_a_column_of_use_stop_in_one_line(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    corpus(layout, "target", feature_rows(6, audio=[1.0, 2.0]))
    with pytest.raises(InputError) as error:
        embed.run(params(encoders), layout)
    assert str(error.value) == (
        "target.corpus: no column of audio is of use (audio[0]: constant; audio[1]: constant); "
        "leave audio out of the corpus"
    )


def test_a_corpus_that_changed_since_it_was_split(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(tmp_path)
    table = layout.table("target").read_bytes()
    corpus(layout, "target", feature_rows(6))
    layout.table("target").write_bytes(table)
    with pytest.raises(InputError, match=r"does not have all rows of .*; run `dvc repro split`"):
        embed.run(params(encoders), layout)


def test_streams_of_a_clip_stand_side_by_side_each_kept_by_itself(tmp_path: Path, encoders: EmbedParams) -> None:
    layout = project(
        tmp_path, [("p0", None, None, "a.mkv"), ("p1", None, None, "silent.mkv"), ("p2", "sad", None, None)]
    )
    samples = tone()
    sounding(tmp_path / "media" / "a.mkv", samples[None])
    sounding(tmp_path / "media" / "silent.mkv", None)
    both = encoders.video.model_copy(update={"streams": ("frames", "sound")})
    embed.run(params(encoders, video=both), layout)
    found = artifacts.read_embeddings(layout.embeddings("posts", "video"))
    columns = slices(found.encoder)
    assert found.present.tolist() == [True, True, False]
    expected = sound_features.features(
        read_clip(tmp_path / "media" / "a.mkv", sound_seconds=9, max_pixels=10_000).sound()
    )
    np.testing.assert_allclose(found.vectors[0, columns["sound"]], expected, rtol=1e-6)
    assert np.isnan(found.vectors[1, columns["sound"]]).all()
    assert np.isfinite(found.vectors[:2, columns["frames"]]).all()
    report = json.loads(layout.details("embed").read_text())["video"]
    assert report["streams"]["sound"]["reasons"] == {"no sound": 1, "none": 1}
    assert report["bad_share"] == report["streams"]["sound"]["bad_share"] == 0
    # Frames alone give the same vectors.
    embed.run(params(encoders), layout)
    alone = artifacts.read_embeddings(layout.embeddings("posts", "video"))
    np.testing.assert_array_equal(alone.vectors[:2], found.vectors[:2, columns["frames"]])


def test_a_clip_is_opened_once_for_all_streams_and_not_for_what_it_is_known_to_lack(
    tmp_path: Path, encoders: EmbedParams, monkeypatch: pytest.MonkeyPatch
) -> None:
    layout = project(tmp_path, [("p0", None, None, "a.mkv"), ("p1", None, None, "silent.mkv")])
    sounding(tmp_path / "media" / "a.mkv", tone()[None])
    sounding(tmp_path / "media" / "silent.mkv", None)
    opened: list[str] = []
    real = read_clip

    def counted(path: Path, **asked: Any) -> Clip:
        opened.append(path.name)
        return real(path, **asked)

    monkeypatch.setattr(streams, "read_clip", counted)
    both = params(encoders, video=encoders.video.model_copy(update={"streams": ("frames", "sound")}))
    embed.run(both, layout)
    assert sorted(opened) == ["a.mkv", "silent.mkv"]
    first, details = layout.embeddings("posts", "video").read_bytes(), layout.details("embed").read_bytes()
    embed.run(both, layout)
    assert len(opened) == 2  # that there is no sound is kept as the vectors are
    assert layout.embeddings("posts", "video").read_bytes() == first
    assert layout.details("embed").read_bytes() == details


def test_groups_are_standardised_by_their_own_clips() -> None:
    vectors = np.array([[1.0, 5], [3, 5], [2, np.nan], [9, 9], [9, 9]], dtype=np.float32)
    groups = np.array(["a", "a", "a", "b", "b"])
    made = per_group(vectors, groups, {"frames": slice(0, 1), "sound": slice(1, 2)})
    spread = np.std([1, 3, 2])
    np.testing.assert_allclose(made[:3, 0], (np.array([1, 3, 2]) - 2) / spread, rtol=1e-6)
    # Two clips of `a` have sound, and `b` has two in all: too few to say what is usual.
    assert np.isnan(made[:, 1]).all() and np.isnan(made[3:]).all()
