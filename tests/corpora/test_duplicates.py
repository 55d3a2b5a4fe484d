from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageDraw

from pipeline.corpora.duplicates import Fingerprint, find_links, fingerprint, merge_groups, near_pairs, normalised


def scene(seed: int) -> Image.Image:
    rng = np.random.default_rng(seed)
    picture = Image.new("RGB", (240, 180), tuple(rng.integers(0, 256, 3).tolist()))
    draw = ImageDraw.Draw(picture)
    for _ in range(12):
        x, y, size = rng.integers([0, 0, 20], [200, 140, 90]).tolist()
        draw.ellipse((x, y, x + size, y + size), fill=tuple(rng.integers(0, 256, 3).tolist()))
    return picture


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("Me RN:", "me rn"),
        ("  me   rn  ", "me rn"),
        ("me rn https://t.co/x @bob", "me rn"),
        ("ＭＥ rn!!", "me rn"),
        ("😂😂", "😂😂"),
        ("Straße", "strasse"),
        ("https://t.co/x", None),
    ],
)
def test_normalised(text: str, plain: str | None) -> None:
    assert normalised(text) == plain


def test_near_pairs_equal_a_comparison_of_all_with_all() -> None:
    rng = np.random.default_rng(0)
    base = rng.integers(0, 2**63, 40, dtype=np.uint64)
    hashes = np.concatenate([base, base, base])
    for at in range(40, 120):  # flip 0 to 7 bits
        for bit in rng.choice(64, rng.integers(0, 8), replace=False):
            hashes[at] ^= np.uint64(1) << np.uint64(bit)
    look = rng.uniform(0, 255, 192).astype(np.float32)
    prints = [Fingerprint(str(at), int(value), look) for at, value in enumerate(hashes)]
    for distance in (0, 3, 4, 8):
        slow = [
            (a, b)
            for a in range(120)
            for b in range(a + 1, 120)
            if (int(hashes[a]) ^ int(hashes[b])).bit_count() <= distance
        ]
        assert near_pairs(prints, distance) == slow


def test_pictures_with_one_hash_but_another_look_are_not_near() -> None:
    rng = np.random.default_rng(0)
    looks = rng.uniform(0, 255, (2, 192)).astype(np.float32)
    assert near_pairs([Fingerprint("a", 7, looks[0]), Fingerprint("b", 7, looks[1])], 4) == []


def test_a_resized_recompressed_copy_is_found_and_other_scenes_are_not(tmp_path: Path) -> None:
    for seed in range(12):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(3).resize((160, 120)).save(tmp_path / "copy.jpg", quality=60)
    paths = [tmp_path / f"{seed}.png" for seed in range(12)] + [tmp_path / "copy.jpg"]
    assert near_pairs([fingerprint(path, max_pixels=10**6) for path in paths], 4) == [(3, 12)]


def test_links_by_what_is_shared(tmp_path: Path) -> None:
    scene(1).save(tmp_path / "a.png")
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes())
    scene(2).save(tmp_path / "c.png")
    (tmp_path / "bad.jpg").write_bytes(b"no picture")
    (tmp_path / "x.mp4").write_bytes(b"clip")
    (tmp_path / "y.mp4").write_bytes(b"clip")
    rows = pd.DataFrame(
        {
            "text": ["Hi!", "other", None, "hi", None],
            "image": ["a.png", "b.png", "c.png", "bad.jpg", "missing.jpg"],
            "video": [None, "x.mp4", None, None, "y.mp4"],
        },
        dtype=object,
    ).replace({np.nan: None})
    links = find_links(rows, tmp_path, distance=4, max_pixels=10**6, workers=1)
    assert (links.text, links.picture, links.near_picture, links.clip) == ([(0, 3)], [(0, 1)], [], [(1, 4)])


def test_groups_merge_through_chains_of_links_and_given_names() -> None:
    given = ["zoe", None, "amy", None, None, "amy"]
    names = merge_groups(given, ["p0", "p1", "p2", "p3", "p4", "p5"], [(0, 1), (1, 2)])
    assert names.tolist() == ["amy", "amy", "amy", "post:p3", "post:p4", "amy"]


def test_no_links_at_all() -> None:
    assert merge_groups([None, None], ["a", "b"], []).tolist() == ["post:a", "post:b"]
