"""The example corpus: exact quotas, same seed same bytes, media that decode, irony that turns pictures around."""

import csv
from collections import Counter
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from pipeline.corpora.fingerprints import clip_fingerprints, fingerprints, near_clips, near_pairs
from pipeline.params import SplitParams
from pipeline.synthetic.drawing import EXPRESSIONS, render_clip
from pipeline.synthetic.posts import FLIPPED, MOODS, bare, cross_quotas, plan_posts, quotas, render_posts


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("corpus")
    render_posts(folder, posts=24, seed=7)
    return folder


def rows(folder: Path) -> list[dict[str, str]]:
    with (folder / "manifest.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def frames(path: Path) -> list[np.ndarray]:
    with av.open(str(path)) as clip:
        return [frame.to_ndarray(format="rgb24").astype(float) for frame in clip.decode(video=0)]


def test_quotas_by_hand() -> None:
    assert quotas(10, {"a": 0.5, "b": 0.26, "c": 0.24}) == {"a": 5, "b": 3, "c": 2}
    table = cross_quotas({"x": 3, "y": 1}, {"p": 2, "q": 2})
    assert [sum(table[r, c] for c in "pq") for r in "xy"] == [3, 1]
    assert [sum(table[r, c] for r in "xy") for c in "pq"] == [2, 2]


def test_default_corpus_has_the_shares_of_the_issue() -> None:
    plan = plan_posts(625, seed=1)
    assert Counter(p.label for p in plan) == {
        "Neutral/Other": 198,
        "Joy": 183,
        "Anger": 166,
        "Surprise": 46,
        "Sadness": 32,
    }
    assert Counter(p.modality for p in plan) == {"image": 472, "video": 124, "text": 29}
    for modality in ("image", "video"):
        part = [p.label for p in plan if p.modality == modality]
        assert part.count("Anger") / len(part) == pytest.approx(0.266, abs=0.01)


@pytest.mark.parametrize("posts", [20, 21, 57, 300])
def test_any_number_of_posts_keeps_every_class_and_modality(posts: int) -> None:
    plan = plan_posts(posts, seed=3)
    assert len(plan) == posts
    assert {p.label for p in plan} == set(MOODS)
    assert {p.modality for p in plan} == {"image", "video", "text"}


def test_too_few_posts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 20"):
        plan_posts(19, seed=1)


def test_label_noise_and_reposts_are_a_few_per_cent() -> None:
    plan = plan_posts(625, seed=1)
    assert sum(p.label != p.meaning for p in plan) == 22  # 11 swapped pairs, 3.5 %
    again = [(p, p.picture_of if p.picture_of is not None else p.text_of) for p in plan]
    reposts = [(p, plan[source]) for p, source in again if source is not None]
    assert len(reposts) == 9
    assert all(p.label == source.label and p.author != source.author for p, source in reposts)


def test_texts_are_unique_but_for_reposts() -> None:
    plan = plan_posts(625, seed=1)
    copies = sum(p.text_of is not None for p in plan)
    assert len({bare(p.text) for p in plan}) == 625 - copies


def test_irony_turns_the_picture_around() -> None:
    plan = plan_posts(625, seed=1)
    assert {FLIPPED["Joy"], FLIPPED["Anger"]} == {"angry", "happy"}
    for post in plan:
        if post.modality != "text" and post.mood is not None:
            expected = FLIPPED[post.meaning] if post.tone == "ironic" else MOODS[post.meaning]
            assert post.mood == expected
    ironic = [p for p in plan if p.tone == "ironic" and p.meaning in ("Joy", "Anger")]
    assert len(ironic) > 50


def test_authors_are_many_and_unequal() -> None:
    counts = Counter(p.author for p in plan_posts(625, seed=1))
    assert len(counts) == 156
    assert max(counts.values()) >= 12
    assert max(counts.values()) < 60


def test_same_seed_same_bytes(corpus: Path, tmp_path: Path) -> None:
    render_posts(tmp_path / "again", posts=24, seed=7)
    assert contents(tmp_path / "again") == contents(corpus)


def test_two_processes_draw_what_one_draws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.synthetic.posts.TOGETHER", 12)  # something for each
    for processes in (1, 2):
        render_posts(tmp_path / str(processes), posts=24, seed=5, processes=processes)
    assert contents(tmp_path / "1") == contents(tmp_path / "2")


def test_other_seed_other_corpus(corpus: Path, tmp_path: Path) -> None:
    render_posts(tmp_path / "other", posts=20, seed=8)
    assert not {r["text"] for r in rows(tmp_path / "other")} & {r["text"] for r in rows(corpus)}
    shared = set(contents(tmp_path / "other").values()) & set(contents(corpus).values())
    assert not shared


def test_manifest_names_media_that_decode(corpus: Path) -> None:
    table = rows(corpus)
    assert list(table[0]) == ["id", "text", "image", "video", "label", "group"]
    assert len({r["id"] for r in table}) == len(table) == 24
    named = {r[kind] for r in table for kind in ("image", "video") if r[kind]}
    assert named | {"manifest.csv"} == set(contents(corpus))
    for row in table:
        assert row["text"] and row["group"]
        if row["image"]:
            with Image.open(corpus / row["image"]) as picture:
                assert np.asarray(picture.convert("L"), dtype=float).std() > 10
        if row["video"]:
            clip = frames(corpus / row["video"])
            assert len(clip) == 24
            assert clip[0].shape == (224, 224, 3)


def test_no_picture_and_no_clip_looks_like_another(corpus: Path, tmp_path: Path) -> None:
    pictures, clips = ([corpus / r[kind] for r in rows(corpus) if r[kind]] for kind in ("image", "video"))
    split = SplitParams()
    assert near_pairs(fingerprints(pictures, 10**6, 1, tmp_path), split.picture_agreement) == []
    moving = clip_fingerprints(clips, 10**6, 1, tmp_path)
    assert near_clips(moving, split.clip_agreement, split.picture_agreement) == []


def test_feelings_unfold_in_a_clip() -> None:
    for mood in EXPRESSIONS:
        clip = [np.asarray(f, dtype=float) for f in render_clip(mood, "pov", np.random.default_rng(5))]
        assert len(clip) >= 8
        change = np.abs(clip[-1] - clip[0]).mean()
        assert change > (1 if mood == "calm" else 8), mood


def test_a_folder_in_use_is_refused(corpus: Path) -> None:
    with pytest.raises(FileExistsError, match="not empty"):
        render_posts(corpus, posts=24, seed=7)
