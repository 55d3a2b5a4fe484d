from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from scipy.spatial import cKDTree

from pipeline.corpora import looks
from pipeline.corpora.duplicates import components
from pipeline.corpora.fingerprints import Fingerprint, fingerprints, near_pairs
from pipeline.corpora.looks import SIDE, descriptors, look, same_looks, shades, turned
from pipeline.media.pictures import read_picture
from tests.altered import ALTERED, jpeg, scene

SCENES = 30


def test_copies_are_found_whatever_was_done_to_them_and_other_pictures_are_not() -> None:
    rng = np.random.default_rng(0)
    kinds = list(ALTERED)
    made = [jpeg(ALTERED[kind](scene(at), rng), kind) for kind in kinds for at in range(SCENES)]
    pixels = [np.asarray(scene(at)) for at in range(SCENES)]
    pixels += [read_picture(file, max_pixels=10**7, at_least=64) for file in made]
    pairs = same_looks(np.stack([look(picture) for picture in pixels]), 0.6)
    wrong = [(a, b) for a, b in pairs if a % SCENES != b % SCENES]
    assert len(wrong) <= 0.01 * len(pairs)
    member = components(list(set(pairs) - set(wrong)), len(pixels)).reshape(-1, SCENES)
    recall = dict(zip(kinds, (member[1:] == member[0]).mean(axis=1), strict=True))
    assert np.mean(list(recall.values())) >= 0.95
    assert min(recall.values()) >= 0.75, recall  # discs on plain ground, hardly told apart: harder than photographs


@pytest.mark.parametrize("turn", range(8))
def test_a_turn_changes_no_descriptor_and_is_named(turn: int) -> None:
    some = np.stack([look(np.asarray(scene(at)))[0] for at in range(5)])
    other = turned(some, turn)
    assert np.allclose(descriptors(shades(some)), descriptors(shades(other)), atol=1e-5)
    (found, *_) = looks.matches(np.concatenate([some, other]))
    ways = {(int(a), int(b)): int(way) for a, b, way in zip(found.left, found.right, found.turn, strict=True)}
    for at in range(5) if turn else ():
        assert np.array_equal(turned(other[at], ways[at, at + 5]), some[at])


def test_the_nearest_equal_those_of_a_tree() -> None:
    rng = np.random.default_rng(0)
    points = rng.normal(size=(3000, 4)).astype(np.float32)
    asked = np.concatenate([points[:500], rng.normal(size=(100, 4)).astype(np.float32)])
    row, column = looks.nearest(asked, points, 0.5, 5)
    _, near = cKDTree(points).query(asked, k=5, distance_upper_bound=0.5)
    assert sorted(zip(row, column, strict=True)) == sorted(
        (at, int(place)) for at, places in enumerate(np.asarray(near)) for place in places if place < len(points)
    )
    assert np.bincount(row).max() == 5
    assert [len(of) for of in looks.nearest(asked + 100, points, 0.5, 5)] == [0, 0]


def test_a_crop_is_cut_out_of_its_original() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (20, 20, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(picture).resize((400, 400)))
    whole, part = look(picture)[0], look(picture[20:, :380])[0]
    which = looks.best_cut(whole[None], part[None])
    before, after = (
        looks.details(values) for values in (np.stack([whole, looks.cut(whole[None], which)[0]]), part[None])
    )
    assert (before[0] * after).sum() < 0.3
    assert (before[1] * after).sum() > 0.85


def test_a_border_is_no_evidence() -> None:
    framed = []
    for seed in range(2):
        picture = np.full((240, 300, 3), 250, dtype=np.uint8)
        picture[30:210, 30:270] = np.asarray(scene(seed))
        framed.append(look(picture))
    assert same_looks(np.stack(framed), 0.6) == []
    assert same_looks(np.stack([framed[0], look(np.asarray(scene(0)))]), 0.6) == [(0, 1)]


def test_a_bright_part_that_becomes_a_border_hides_no_copy() -> None:
    """What is lost to white when a picture is brightened looks like a border, which the original has not."""
    for seed in range(4):
        coarse = np.random.default_rng(seed).integers(0, 160, (12, 15, 3), dtype=np.uint8)
        picture = np.array(Image.fromarray(coarse).resize((300, 240)))
        picture[:, 190:] = np.linspace(190, 250, 240)[:, None, None]
        brighter = np.minimum(picture * 1.4, 255).astype(np.uint8)
        looked = look(picture), look(brighter)
        assert (looked[0][0] == looked[0][1]).all()
        assert (looked[1][0] != looked[1][1]).any()
        assert same_looks(np.stack(looked), 0.6) == [(0, 1)], seed


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (3, 2), (40, 300)])
def test_pictures_of_any_size_have_a_look(size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    assert look(picture).shape == (2, SIDE, SIDE)


def test_blank_pictures_are_no_copies() -> None:
    blank = [look(np.full((90, 90, 3), shade, dtype=np.uint8)) for shade in (0, 0, 128, 255)]
    assert same_looks(np.stack(blank), 0.6) == []
    assert same_looks(np.stack(blank[:1]), 0.6) == []


def test_equal_files_are_compared_once(tmp_path: Path) -> None:
    for seed in range(4):
        scene(seed).save(tmp_path / f"{seed}.png")
    scene(3).resize((160, 120)).save(tmp_path / "4.jpg", quality=60)
    (tmp_path / "5.png").write_bytes((tmp_path / "3.png").read_bytes())
    (tmp_path / "6.png").write_bytes(b"no picture")
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "missing.png"]
    prints = fingerprints(paths, 10**6, 1, tmp_path / "cache")
    assert near_pairs(prints, 0.6) == [(3, 4)]
    assert prints[3] and prints[5] and prints[3].content == prints[5].content
    assert isinstance(prints[6], Fingerprint)
    assert prints[6].look is None
    assert prints[7] is None


def test_a_picture_is_read_once_however_often_it_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, path in enumerate(paths):
        scene(seed).save(path)
    first = fingerprints(paths, 10**6, 1, tmp_path / "cache")
    scene(3).save(paths[0])
    read = []
    monkeypatch.setattr(
        "pipeline.corpora.fingerprints.read_picture", lambda path, **how: read.append(path) or read_picture(path, **how)
    )
    again = fingerprints(paths, 10**6, 1, tmp_path / "cache")
    assert read == [paths[0]]
    assert [here == there for here, there in zip(contents(first), contents(again), strict=True)] == [False, True, True]
    # One that is too large now is no picture, whatever was kept of it before.
    assert [look for _, look in contents(fingerprints(paths, 10**4, 1, tmp_path / "cache"))] == [None] * 3


def contents(prints: list[Fingerprint | None]) -> list[tuple[str, bytes | None]]:
    return [(of.content, None if of.look is None else of.look.tobytes()) for of in prints if of]
