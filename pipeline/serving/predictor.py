"""Posts → predictions: label, calibrated probabilities, what each modality said, and why.

``Predictor.load("bundle/")`` needs the bundle and this package: no project, no DVC, no network.
"""

import math
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import islice, product
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pipeline.core.errors import InputError
from pipeline.core.files import MediaError
from pipeline.core.layout import Layout
from pipeline.core.prefetch import prefetch_map
from pipeline.core.schemas import LEARNING, MODALITIES, Modality, Stream
from pipeline.encoders.faces import FaceEncoder
from pipeline.encoders.image import ImageEncoder
from pipeline.encoders.streams import ClipEncoder, Ready, first_reason, slices
from pipeline.encoders.tfidf import TextWithWords, TfidfEncoder
from pipeline.encoders.video import VideoEncoder
from pipeline.media.clips import Clip
from pipeline.media.kinds import NO_FACE, NO_SOUND, NO_WORDS
from pipeline.media.pictures import read_picture
from pipeline.params import Params
from pipeline.posts import model
from pipeline.posts.model import Branch, Encoder, Model
from pipeline.scoring import conformal, emotion
from pipeline.serving import bundle
from pipeline.serving.posts import Explanation, ModalityAnswer, Post, Prediction, Prepared, StreamAnswer
from pipeline.training.device import pick

EMPTY = "empty"
"""Why a text of blanks is absent, in the words of `embed`."""

GRID = 5
"""A picture is occluded in so many by so many patches."""

STEP = 8
"""Pieces that are occluded together: what waits for an explanation waits for so many encodings."""

MOST_WORDS = 256
"""Later words of a text are not occluded: most encoders do not read so far, and each word costs an encoding."""


@dataclass(frozen=True)
class EncodedModality:
    """One modality of n posts, encoded: zeros where it is not there, and then the error says why.

    Attributes:
        vectors: float32 [n, width] of the frozen encoder.
        logits: float64 [n, K] of the specialist, calibrated.
        errors: n; None where the modality is there.
        inputs: float32 [n, w], what the specialist reads.
        lacking: n; of a clip or picture that is there, which streams are not, and why.
    """

    vectors: np.ndarray
    logits: np.ndarray
    errors: list[MediaError | None]
    inputs: np.ndarray
    lacking: list[Mapping[Stream, str]]

    @property
    def present(self) -> np.ndarray:
        return np.array([error is None for error in self.errors], dtype=bool)

    @property
    def expert_log_probs(self) -> np.ndarray:
        """Centred log-probabilities, float32 [n, K], as `fuse` learned from them; zeros where absent."""
        return (emotion.centred_log_probabilities(self.logits) * self.present[:, None]).astype(np.float32)

    def times(self, count: int) -> "EncodedModality":
        """The same post ``count`` times."""
        vectors, logits, inputs = (rows.repeat(count, axis=0) for rows in (self.vectors, self.logits, self.inputs))
        return EncodedModality(vectors, logits, self.errors * count, inputs, self.lacking * count)


ModalityInputs = Mapping[Modality, EncodedModality]


class Predictor:
    """Predicts with one model that stays loaded; one caller at a time.

    Args:
        device: as params ``device``.
    """

    def __init__(self, parts: Model, device: str = "auto") -> None:
        self.model = parts
        self.device = pick(device)
        for net in (parts.fusion, *(branch.classifier for branch in parts.branches.values())):
            if net is not None:
                net.to(self.device)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "Predictor":
        """From a bundle. Raises InputError when it is not whole, was changed, or is of another format."""
        return cls(bundle.read(Path(folder)), device)

    @classmethod
    def of_project(cls, params: Params, layout: Layout) -> "Predictor":
        """From the models of a finished run. Raises InputError when there are none, or params.yaml has changed."""
        return cls(model.of_project(params, layout), params.device)

    @property
    def labels(self) -> tuple[str, ...]:
        return self.model.labels

    def predict(self, posts: Sequence[Post], coverage: float | None = None) -> list[Prediction]:
        """One prediction a post, in order: texts are encoded together, pictures together, clips together.

        A post of which nothing can be used gets what the fusion learned of such posts, which is about the prior; its
        parts say so.

        Args:
            posts: as many as may be in memory as vectors; pictures and clips are decoded as they are needed.
            coverage: above 0 and below 1, for prediction sets.
        """
        if not posts:
            return []
        inputs = self._inputs(posts)
        logits, changes = self._with_changes(inputs)
        if not np.isfinite(logits).all():
            raise InputError("the model gives numbers that are not finite; its weights are no good, so train it again")
        streams: dict[Modality, Sequence[dict[Stream, StreamAnswer] | None]] = {
            name: self._streams_of(name, inputs, logits) for name in inputs
        }
        probabilities, label = emotion.softmax(logits), self._decide(logits)
        sets = None
        if coverage is not None:
            limits = conformal.thresholds(self.model.nonconformity, coverage)
            sets = conformal.prediction_sets(probabilities, label, limits)
        alone: dict[Modality, np.ndarray] = {name: emotion.softmax(encoded.logits) for name, encoded in inputs.items()}
        return [
            Prediction(
                self.labels[label[at]],
                self._named(probabilities[at]),
                self._parts(post, at, inputs, changes, alone, streams),
                None if sets is None else [name for name, held in zip(self.labels, sets[at], strict=True) if held],
            )
            for at, post in enumerate(posts)
        ]

    def explain(self, post: Post) -> Explanation:
        """Occludes one post piece by piece; costs an encoding for each word, each patch and each frame."""
        steps = self.explain_in_steps(post)
        while True:
            try:
                next(steps)
            except StopIteration as end:
                return end.value

    def explain_in_steps(self, post: Post) -> Generator[None, None, Explanation]:
        """As ``explain``, which may be left off, or wait for something else, after each ``STEP`` pieces."""
        post = self.read(post)
        inputs = self._inputs([post])
        logits = self._logits(inputs)[0]
        available = {name for name, encoded in inputs.items() if encoded.present[0]}

        def changes(name: Modality, pieces: Iterable[Any]) -> Generator[None, None, list[float]]:
            changed, rest = [], iter(pieces)
            while step := list(islice(rest, STEP)):
                yield
                changed += self._changes(inputs, logits, name, self._look(name, step)).tolist()
            return changed

        words = patches = frames = None
        if "text" in available and post.text is not None:
            spans = list(islice(re.finditer(r"\S+", post.text), MOST_WORDS))
            without = [post.text[: span.start()] + post.text[span.end() :] for span in spans]
            changed = yield from changes("text", without)
            words = [(span.group(), span.start(), change) for span, change in zip(spans, changed, strict=True)]
        if "image" in available and isinstance(post.image, np.ndarray):
            changed = yield from changes("image", occluded(post.image, GRID))
            patches = np.array(changed).reshape(GRID, GRID)
        if "video" in available and isinstance(post.video, Clip):
            frames = (yield from changes("video", self._frame_by_frame(post.video))) or None
        return Explanation(self.labels[self._decide(logits)[0]], words, patches, frames)

    def read(self, post: Post, *, max_seconds: float = math.inf, deadline: float = math.inf) -> Post:
        """The post with pixels, frames and sound in place of files, or why there are none.

        This and ``prepared`` touch no net: other threads may call them while one predicts. See ``read_clip`` for
        the limits of a clip.
        """

        def clip(source: Path | bytes | Clip | Sequence[np.ndarray]) -> Clip:
            return self._clip(source, max_seconds, deadline)

        text = None if post.text is None else well_formed(post.text)
        return Post(text, self._or_error(post.image, self._picture), self._or_error(post.video, clip))

    def prepared(self, post: Post) -> Post:
        """A post that was read, in the form that its encoders take, which is small whatever its pictures are."""

        def small(source: Any, ready: Callable[[Any], np.ndarray | Ready | MediaError]) -> Any:
            if source is None:
                return None
            prepared = ready(source)
            return prepared if isinstance(prepared, MediaError) else Prepared(prepared)

        return Post(post.text, small(post.image, self._pixels), small(post.video, self._streams))

    def faces(self, clip: Clip) -> list[tuple[np.ndarray, tuple[float, float, float, float] | None]] | None:
        """The frames of a clip that was read in which faces are measured, each with where its face is, if it has one.

        See ``FaceEncoder.box``. None where the model measures no faces, or the clip has no frames.
        """
        encoder = self._faces("video")
        if encoder is None or isinstance(clip.shown, MediaError):
            return None
        return [(frame, encoder.box(frame)) for frame in clip.frames(*encoder.frame_request)]

    def face(self, picture: np.ndarray) -> list[tuple[np.ndarray, tuple[float, float, float, float] | None]] | None:
        """The same of a picture that was read, uint8 [H, W, 3]."""
        encoder = self._faces("image")
        return None if encoder is None else [(picture, encoder.box(picture))]

    def _faces(self, name: Modality) -> FaceEncoder | None:
        branch = self.model.branches.get(name)
        return branch.frozen.faces if branch is not None and isinstance(branch.frozen, ClipEncoder) else None

    def _frame_by_frame(self, clip: Clip) -> Iterator[Prepared | MediaError]:
        """The clip with each of its first frames left out in turn, for the streams that look at these; none without."""
        if isinstance(clip.shown, MediaError) or not clip.shown:
            return
        encoder: ClipEncoder = self._encoder("video")
        whole, (request, frames) = encoder.prepare(clip), next(iter(clip.shown.items()))
        looking: list[Stream] = [name for name, stream in encoder.streams.items() if stream.frame_request == request]
        for at in range(len(frames)):
            less = replace(clip, shown={**clip.shown, request: [*frames[:at], *frames[at + 1 :]]})
            ready: Ready = {**whole, **encoder.prepare(less, looking)}
            yield first_reason(ready) or Prepared(ready)

    def _picture(self, source: Path | bytes | np.ndarray) -> np.ndarray:
        """The pixels that are looked at, uint8 [H, W, 3]. Raises MediaError."""
        if isinstance(source, np.ndarray):
            return source
        encoder: ImageEncoder | ClipEncoder = self._encoder("image")
        at_least = encoder.picture_side if isinstance(encoder, ClipEncoder) else encoder.at_least
        return read_picture(source, max_pixels=self.model.embed.max_pixels, at_least=at_least)

    def _clip(
        self,
        source: Path | bytes | Clip | Sequence[np.ndarray],
        max_seconds: float = math.inf,
        deadline: float = math.inf,
    ) -> Clip:
        """What is looked at and listened to of a clip. Raises MediaError."""
        if isinstance(source, Clip):
            return source
        encoder: ClipEncoder = self._encoder("video")
        if isinstance(source, Path | bytes):
            return encoder.read(source, self.model.embed.max_pixels, max_seconds=max_seconds, deadline=deadline)
        shown = dict.fromkeys(encoder.read_request()["frames"], source)
        return Clip(shown, MediaError(f"{NO_SOUND}: frames alone"))

    def _encoder(self, name: Modality) -> Any:
        """The frozen encoder of a modality. Raises MediaError when the model has none."""
        if name not in self.model.branches:
            raise MediaError(_unknown(name))
        return self.model.branches[name].frozen

    def _or_error(self, source: Any, read: Callable[[Any], Any]) -> Any:
        if source is None or isinstance(source, MediaError):
            return source
        try:
            return read(source)
        except MediaError as error:
            return error

    # --- from posts to logits ----------------------------------------------------------------------------------------

    def _inputs(self, posts: Sequence[Post]) -> dict[Modality, EncodedModality]:
        return {name: self._look(name, [_value(post, name) for post in posts]) for name in self.model.branches}

    def _look(self, name: Modality, values: Sequence[Any]) -> EncodedModality:
        """Reads and encodes one modality of n posts."""
        read = {"text": _text, "image": self._pixels, "video": self._streams}[name]
        if name == "text" or len(values) == 1:  # not worth a thread
            return self._gather(name, map(read, values), len(values))
        workers = self.model.embed.workers
        items = prefetch_map(read, values, workers=workers, depth=2 * self._batch(name, len(values)) + workers)
        return self._gather(name, items, len(values))

    def _batch(self, name: Modality, count: int) -> int:
        """How many items are encoded together; the text encoder makes batches of its own, by length."""
        embed = self.model.embed
        clips = max(embed.video.batch // embed.video.frames, 1)
        return {"text": count, "image": embed.image.batch, "video": clips}[name]

    @torch.inference_mode()
    def _gather(self, name: Modality, items: Iterator[Any], count: int) -> EncodedModality:
        """Encodes ``count`` items that are ready for the encoder, or say why there is none."""
        branch = self.model.branches[name]
        vectors = np.zeros((count, branch.frozen.width), dtype=np.float32)
        inputs = np.zeros((count, len(branch.classifier.mean)), dtype=np.float32)
        logits = np.zeros((count, len(self.labels)))
        errors: list[MediaError | None] = [None] * count
        lacking: list[Mapping[Stream, str]] = [{}] * count
        numbered = enumerate(items)
        while batch := list(islice(numbered, self._batch(name, count))):
            good = {at: item for at, item in batch if not isinstance(item, MediaError)}
            for at, item in batch:
                errors[at] = item if isinstance(item, MediaError) else None
            if good:
                rows = list(good)
                vectors[rows], inputs[rows] = self._encode(branch, list(good.values()))
                logits[rows] = self._classify(branch, inputs[rows])
            if isinstance(branch.frozen, ClipEncoder):
                for at, item in good.items():
                    lacking[at] = {key: str(error) for key, error in item.items() if isinstance(error, MediaError)}
        return EncodedModality(vectors, logits, errors, inputs, lacking)

    def _classify(self, branch: Branch, inputs: np.ndarray) -> np.ndarray:
        """What the specialist says of its inputs, float32 [n, w]: calibrated logits, float64 [n, K]."""
        logits = branch.classifier(torch.from_numpy(inputs).to(self.device))
        return branch.description.calibration.calibrated(logits.float().cpu().numpy())

    def _encode(self, branch: Branch, items: list[Any]) -> tuple[np.ndarray, np.ndarray]:
        """The frozen encoder's vectors, and what the specialist reads."""
        vectors = self._vectors(branch.frozen, items)
        if isinstance(branch.encoder, TfidfEncoder):
            inputs = branch.encoder.sparse(items).toarray()
        elif isinstance(branch.encoder, TextWithWords):
            inputs = branch.encoder.beside(vectors, items)
        elif branch.encoder is branch.frozen:
            inputs = vectors
        elif isinstance(branch.frozen, ClipEncoder):
            (modality,) = branch.description.modalities
            pixels = [item[LEARNING[modality]] for item in items]
            inputs = np.full((len(items), branch.encoder.width), np.nan, dtype=np.float32)
            shown = [at for at, picture in enumerate(pixels) if isinstance(picture, np.ndarray)]
            if shown:
                inputs[shown] = self._vectors(branch.encoder, [pixels[at] for at in shown])
        else:
            inputs = self._vectors(branch.encoder, items)
        return vectors, inputs

    def _vectors(self, encoder: Encoder | VideoEncoder, items: list[Any]) -> np.ndarray:
        if isinstance(encoder, ImageEncoder):
            return encoder.encode(np.stack(items), self.device)
        return encoder.encode(items, self.device)

    def _pixels(self, source: Any) -> np.ndarray | Ready | MediaError:
        """float32 [3, S, S], or what the streams of a picture take, or why there is none."""
        if isinstance(source, Prepared):
            return source.values
        picture = self._or_error(source, self._picture)
        if picture is None or isinstance(picture, MediaError):
            return picture or MediaError("none")
        encoder: ImageEncoder | ClipEncoder = self._encoder("image")
        if isinstance(encoder, ImageEncoder):
            return encoder.preprocess(picture)
        ready = encoder.prepare(encoder.of_picture(picture))
        return first_reason(ready) or ready

    def _streams(self, source: Any) -> Ready | MediaError:
        """A clip as its encoders take it, or why there is none."""
        if isinstance(source, Prepared):
            assert not isinstance(source.values, np.ndarray)
            return source.values
        clip = self._or_error(source, self._clip)
        if clip is None:
            return MediaError("none")
        if isinstance(clip, MediaError):
            return clip
        ready = self._encoder("video").prepare(clip)
        return first_reason(ready) or ready

    @torch.inference_mode()
    def _logits(self, inputs: ModalityInputs, without: Sequence[Modality | None] = (None,)) -> np.ndarray:
        """Calibrated logits, float64 [len(without), n, K], with each of these masked in turn, all in one pass."""
        fusion, calibration = self.model.fusion, self.model.description.calibration
        if fusion is None:
            ((only, encoded),) = inputs.items()
            nothing = np.array(self.model.description.nothing)
            masked_logits = [
                np.where((encoded.present & (only != masked))[:, None], encoded.expert_log_probs, nothing)
                for masked in without
            ]
            return np.stack([calibration.calibrated(logits) for logits in masked_logits])

        def column(rows: Sequence[np.ndarray]) -> Tensor:
            return torch.from_numpy(np.concatenate(rows)).to(self.device)

        logits = fusion(
            {name: column([encoded.vectors] * len(without)) for name, encoded in inputs.items()},
            {name: column([encoded.expert_log_probs] * len(without)) for name, encoded in inputs.items()},
            {
                name: column([encoded.present & (name != masked) for masked in without])
                for name, encoded in inputs.items()
            },
        )
        return calibration.calibrated(logits.float().cpu().numpy().reshape(len(without), -1, len(self.labels)))

    def _decide(self, logits: np.ndarray) -> np.ndarray:
        return self.model.description.calibration.decide(logits)

    # --- why ---------------------------------------------------------------------------------------------------------

    def _with_changes(self, inputs: ModalityInputs) -> tuple[np.ndarray, dict[Modality, np.ndarray]]:
        """Calibrated logits, float64 [n, K]; modality → change in the label's log-odds when it is masked, [n]."""
        available: list[Modality] = [name for name in MODALITIES if name in inputs and inputs[name].present.any()]
        logits, *masked = self._logits(inputs, [None, *available])
        label = self._decide(logits)
        whole = emotion.log_odds(logits, label)
        changes: dict[Modality, np.ndarray] = {}
        for name, without in zip(available, masked, strict=True):
            change = whole - emotion.log_odds(without, label)
            changes[name] = np.where(inputs[name].present, change, 0.0)
        return logits, {name: changes.get(name, np.zeros(len(label))) for name in inputs}

    @torch.inference_mode()
    def _streams_of(
        self, name: Modality, inputs: ModalityInputs, logits: np.ndarray
    ) -> Sequence[dict[Stream, StreamAnswer] | None]:
        """For each of n posts, what the streams of its clip or picture did: each in turn is masked; empty where there
        is none; None where the modality is not read by streams."""
        branch, encoded = self.model.branches[name], inputs[name]
        if not isinstance(branch.frozen, ClipEncoder):
            return [None for _ in logits]
        label = self._decide(logits)
        whole = emotion.log_odds(logits, label)
        answers: list[dict[Stream, StreamAnswer]] = [{} for _ in logits]
        for stream, columns in slices(branch.frozen.identity).items():
            available: np.ndarray = np.logical_not(np.isnan(encoded.vectors[:, columns]).any(axis=1))
            changes = np.zeros(len(label))
            if available.any():
                masked: ModalityInputs = {**inputs, name: self._without(name, encoded, stream)}
                changes = np.where(available, whole - emotion.log_odds(self._logits(masked)[0], label), 0.0)
            for at, answer in enumerate(answers):
                if encoded.errors[at] is None:
                    answer[stream] = StreamAnswer(
                        bool(available[at]), encoded.lacking[at].get(stream), float(changes[at])
                    )
        return answers

    def _without(self, name: Modality, encoded: EncodedModality, stream: Stream) -> EncodedModality:
        """Clips, or pictures, as they would be without this stream."""
        branch = self.model.branches[name]
        columns = slices(branch.frozen.identity)[stream]
        vectors, inputs = encoded.vectors.copy(), encoded.inputs.copy()
        vectors[:, columns] = np.nan
        if branch.encoder is branch.frozen:
            inputs[:, columns] = np.nan
        elif stream == LEARNING[name]:
            inputs[:] = np.nan
        left = [not np.isnan(vector).all() for vector in vectors]
        errors = [error if here else MediaError("none") for error, here in zip(encoded.errors, left, strict=True)]
        present = np.array([error is None for error in errors])
        return EncodedModality(
            np.where(present[:, None], vectors, 0.0).astype(np.float32),
            np.where(present[:, None], self._classify(branch, inputs), 0.0),
            errors,
            inputs,
            encoded.lacking,
        )

    def _changes(
        self, inputs: ModalityInputs, logits: np.ndarray, name: Modality, encoded: EncodedModality
    ) -> np.ndarray:
        """Changes in the log-odds of one post's label with each of ``encoded`` in turn for what a modality holds."""
        count = len(encoded.errors)
        label = self._decide(logits)
        whole = emotion.log_odds(logits, label)
        others: dict[Modality, EncodedModality] = {other: known.times(count) for other, known in inputs.items()}
        changed = self._logits({**others, name: encoded})[0]
        return whole - emotion.log_odds(changed, label.repeat(count))

    def _parts(
        self,
        post: Post,
        at: int,
        inputs: ModalityInputs,
        changes: Mapping[Modality, np.ndarray],
        alone: Mapping[Modality, np.ndarray],
        streams: Mapping[Modality, Sequence[dict[Stream, StreamAnswer] | None]],
    ) -> dict[Modality, ModalityAnswer]:
        total = sum(abs(float(change[at])) for change in changes.values())
        parts: dict[Modality, ModalityAnswer] = {}
        for name in MODALITIES:
            error = inputs[name].errors[at] if name in inputs else MediaError(_unknown(name))
            if error is None:
                change = float(changes[name][at])
                share = abs(change) / total if total else 0.0
                parts[name] = ModalityAnswer(
                    "present", None, change, share, self._named(alone[name][at]), streams[name][at]
                )
            else:
                parts[name] = _missing(error, _value(post, name) is not None, name in inputs)
        return parts

    def _named(self, values: np.ndarray) -> dict[str, float]:
        return dict(zip(self.labels, values.tolist(), strict=True))


def _value(post: Post, name: Modality) -> Any:
    return {"text": post.text, "image": post.image, "video": post.video}[name]


def _text(value: str | None) -> str | MediaError:
    """Trimmed as `split` does."""
    if value is None:
        return MediaError("none")
    return well_formed(value).strip() or MediaError(EMPTY)


def well_formed(text: str) -> str:
    """A text that has an encoding: each half of a surrogate pair, which no tokenizer takes, becomes a question mark."""
    return text.encode("utf-8", "replace").decode()


def _unknown(name: Modality) -> str:
    return f"the model knows no {name}"


def _missing(error: MediaError, was_given: bool, known: bool) -> ModalityAnswer:
    """A text of blanks, and what the model cannot use, are absent; what was given and cannot be read is unreadable."""
    if not was_given:
        return ModalityAnswer("absent", None, 0.0, 0.0, None)
    unreadable = known and error.kind not in (EMPTY, NO_SOUND, NO_FACE, NO_WORDS)
    return ModalityAnswer("unreadable" if unreadable else "absent", str(error), 0.0, 0.0, None)


def occluded(picture: np.ndarray, grid: int) -> Iterator[np.ndarray]:
    """Copies of a picture, uint8 [H, W, 3], each with one of ``grid`` by ``grid`` patches in the mean colour."""
    colour = picture.mean(axis=(0, 1)).round().astype(np.uint8)
    down, across = (np.linspace(0, side, grid + 1).round().astype(int) for side in picture.shape[:2])
    for row, column in product(range(grid), repeat=2):
        hidden = picture.copy()
        hidden[down[row] : down[row + 1], across[column] : across[column + 1]] = colour
        yield hidden
