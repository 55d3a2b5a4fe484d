from pathlib import Path

import numpy as np
import pytest

from pipeline.corpora import motion
from pipeline.corpora.fingerprints import ClipFingerprint, clip_fingerprints, near_clips
from pipeline.corpora.motion import ClipPrint, Likeness, clip_print, same_clips
from pipeline.media.footage import Footage
from pipeline.params import SplitParams
from tests.altered import scene
from tests.altered_clips import ALTERED_CLIPS, RATE, alter_clip, drawn_clip, frames_of, write_clip

KINDS = (
    "encoded badly",
    "half the size",
    "cropped by 5 % at each edge",
    "without the first second",
    "mirrored",
    "without sound",
)
TAKES = [(place, take) for place in range(2) for take in range(2)]
AGREEMENTS = SplitParams().clip_agreement, SplitParams().picture_agreement


def prints_of(paths: list[Path], folder: Path) -> list[ClipFingerprint | None]:
    return clip_fingerprints(paths, 10**6, 1, folder / "cache")


@pytest.fixture(scope="module")
def takes(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Clips of two places; those of one place differ by what moves and sounds, and by nothing else."""
    folder = tmp_path_factory.mktemp("takes")
    paths = [folder / f"{place}.{take}.mp4" for place, take in TAKES]
    for path, (place, take) in zip(paths, TAKES, strict=True):
        drawn_clip(path, place, take)
    return paths


def test_copies_are_found_whatever_was_done_to_them_and_other_takes_are_not(takes: list[Path], tmp_path: Path) -> None:
    source, done = list(range(len(takes))), [""] * len(takes)
    paths = list(takes)
    for number, kind in enumerate(KINDS):
        for at in range(number % 2, len(takes), 2):  # one take of each place, and each take by half of the kinds
            paths.append(tmp_path / f"{number}.{at}.mp4")
            alter_clip(takes[at], paths[-1], ALTERED_CLIPS[kind])
            source.append(at)
            done.append(kind)
    pairs = near_clips(prints_of(paths, tmp_path), *AGREEMENTS)
    assert [pair for pair in pairs if source[pair[0]] != source[pair[1]]] == []
    of_originals = {pair for pair in pairs if pair[0] < len(takes)}
    missed = {
        (done[at], TAKES[source[at]]) for at in range(len(takes), len(paths)) if (source[at], at) not in of_originals
    }
    assert missed == set()


def test_equal_clips_are_compared_once_and_what_is_no_clip_is_none(takes: list[Path], tmp_path: Path) -> None:
    alter_clip(takes[0], tmp_path / "copy.mp4", ALTERED_CLIPS["mirrored"])
    (tmp_path / "same.mp4").write_bytes(takes[0].read_bytes())
    (tmp_path / "bad.mp4").write_bytes(b"no clip")
    paths = [takes[0], tmp_path / "same.mp4", tmp_path / "copy.mp4", tmp_path / "bad.mp4", tmp_path / "missing.mp4"]
    prints = prints_of(paths, tmp_path)
    kept = prints_of(paths, tmp_path)
    assert near_clips(prints, *AGREEMENTS) == [(0, 2)]
    assert prints[3] is not None
    assert prints[3].print is None
    assert prints[4] is None
    for item, other in zip(prints[:3], kept[:3], strict=True):
        assert item is not None
        assert other is not None
        assert item.content == other.content
        assert item.print is not None
        assert other.print is not None
        assert item.print.packed() == other.print.packed()


def test_an_animated_picture_of_a_clip_is_a_copy_of_it(takes: list[Path], tmp_path: Path) -> None:
    frames = [picture.quantize(64) for _, picture in frames_of(takes[0])][::2]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:], duration=80)
    assert near_clips(prints_of([*takes, tmp_path / "a.gif"], tmp_path), *AGREEMENTS) == [(0, len(takes))]


def test_still_clips_are_told_apart_by_picture_and_sound(tmp_path: Path) -> None:
    """Two songs with one cover are two clips; a cover without a song may be any of them."""
    rng = np.random.default_rng(0)
    songs = [np.repeat(rng.normal(size=(40, 400)), 4, axis=1).ravel().astype(np.float32) / 10 for _ in range(2)]
    silence = np.zeros(0, dtype=np.float32)
    made = {
        "a": (1, songs[0], 20),
        "b": (1, songs[1], 24),
        "c": (1, songs[0], 38),
        "d": (2, songs[0], 20),
        "e": (1, silence, 30),
    }
    for name, (place, song, crf) in made.items():
        write_clip(tmp_path / f"{name}.mp4", [(at / 25, scene(place)) for at in range(100)], song, crf=crf)
    pairs = near_clips(prints_of([tmp_path / f"{name}.mp4" for name in made], tmp_path), *AGREEMENTS)
    assert pairs == [(0, 2), (0, 4), (1, 4), (2, 4)]


def test_samples_are_means_over_time_whatever_the_rate_of_frames() -> None:
    shades = np.array([0, 100, 200, 50], dtype=np.uint8)
    frames = np.broadcast_to(shades[:, None, None], (4, 32, 32))
    made = clip_print(Footage(np.array([0.0, 0.3, 0.35, 0.5]), frames, np.zeros(0, dtype=np.float32)))
    # Windows of .2 seconds each .1: the third has .1 of the first frame, .05 of the second and .05 of the third.
    assert (made.samples[:, 0, 0] / 256).round(2).tolist() == [0, 0, 75, 175, 125]
    assert made.stills[:, 0, 0].tolist() == [60]


@pytest.mark.parametrize("count", [1, 9, 700])
def test_clips_of_any_length_have_a_print(count: int) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (count, 32, 32), dtype=np.uint8)
    made = clip_print(Footage(np.arange(count) / 25, frames, np.zeros(2 * RATE, dtype=np.float32)))
    assert len(made.samples) >= 1
    assert len(made.sound) == 0
    # One that moves, but for less than a second, is not compared.
    assert same_clips([made, made], 0.6, 0.6) == ([] if count == 9 else [(0, 1)])
    assert same_clips([made], 0.6, 0.6) == same_clips([], 0.6, 0.6) == []


def test_blank_clips_are_no_copies() -> None:
    blank = ClipPrint(
        np.full((40, 16, 16), 256 * 90, dtype=np.uint16),
        np.full((4, 32, 32), 90, dtype=np.uint8),
        np.zeros((0, 11), dtype=np.float16),
    )
    assert same_clips([blank] * 3, 0.6, 0.6) == []


def test_a_sound_is_followed_however_it_is_shifted() -> None:
    rng = np.random.default_rng(0)
    sound = np.repeat(rng.normal(size=(60, 400)), 4, axis=1).ravel().astype(np.float32)
    whole, part = motion.sound_changes(sound), motion.sound_changes(sound[RATE:] / 2)
    assert motion.sounds_alike(whole, part, 10) > 0.95
    assert motion.sounds_alike(part, whole, -10) > 0.95
    assert motion.sounds_alike(whole, part, 0) < 0.3
    assert motion.sounds_alike(whole, whole[:0], 0) == motion.SILENT


def test_sound_asks_for_less_motion_or_for_more() -> None:
    assert Likeness(look=0.9, motion=0.4, sound=0.9).same(0.6, 0.6)
    assert not Likeness(look=0.9, motion=0.4, sound=motion.SILENT).same(0.6, 0.6)
    assert Likeness(look=0.9, motion=0.7, sound=motion.SILENT).same(0.6, 0.6)
    assert not Likeness(look=0.9, motion=0.7, sound=0.1).same(0.6, 0.6)
    assert Likeness(look=0.9, motion=0.85, sound=0.1).same(0.6, 0.6)
    assert not Likeness(look=0.5, motion=1.0, sound=1.0).same(0.6, 0.6)
