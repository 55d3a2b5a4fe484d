"""Rows of features → scores: each with an interval, and with what every modality did to it.

``ScorePredictor.load("bundle/")`` needs the bundle and this package: no project, no DVC, no network.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import FEATURES, Feature
from pipeline.corpora.features import FeatureCorpus, average_groups, corpus_of
from pipeline.params import Params
from pipeline.scoring.conformal import COVERAGE, conformal_quantile
from pipeline.sentiment.data import FeatureColumns, lines_of
from pipeline.sentiment.finetuned import score_rows
from pipeline.sentiment.group_context import group_keys
from pipeline.sentiment.text_model import encode_lines
from pipeline.serving import bundle, score_model
from pipeline.serving.score_model import ScoreModel
from pipeline.training.device import pick

Values = Sequence[float] | Sequence[Sequence[float]] | np.ndarray


@dataclass(frozen=True)
class Sample:
    """What one score is made from: any of the three.

    Attributes:
        text: words, or a vector of text features, whichever the model reads.
        audio, visual: a vector of features, or a sequence of such vectors, which is pooled as a corpus' are.
    """

    text: str | Values | None = None
    audio: Values | None = None
    visual: Values | None = None


@dataclass(frozen=True)
class ModalityScore:
    """What became of one modality of a row, and what it did.

    Attributes:
        state: ``present``, ``absent``, or ``unused``: inner folds found that it tells nothing.
        change: the score less what it is with the modality masked; 0 unless it is present.
    """

    state: str
    change: float


@dataclass(frozen=True)
class Score:
    """A score with its interval; None, with a ``reason``, where nothing of a row can be used.

    Attributes:
        low, high: hold the true score so often as the coverage says; None where there were too few calibration rows.
        parts: modality → what became of it, for the modalities that the model knows.
    """

    score: float | None
    low: float | None
    high: float | None
    parts: dict[Feature, ModalityScore]
    reason: str | None = None

    def as_json(self) -> dict[str, Any]:
        parts = {name: vars(part) for name, part in self.parts.items()}
        known = {"score": self.score, "low": self.low, "high": self.high, "modalities": parts, "reason": self.reason}
        return artifacts.rounded(known)


class ScorePredictor:
    """Scores with one model that stays loaded, each row by itself; one caller at a time. What groups make of the scores
    of a table is ``score_table``'s.

    Args:
        device: as params ``device``; for the text encoder, as the net itself is small.
    """

    def __init__(self, model: ScoreModel, device: str = "auto") -> None:
        self.model = model
        self.device = pick(device)

    @classmethod
    def load(cls, folder: Path | str, device: str = "auto") -> "ScorePredictor":
        """From a bundle. Raises InputError when it is not whole, was changed, or holds no score model."""
        return cls(bundle.read_scores(Path(folder)), device)

    @classmethod
    def of_project(cls, params: Params, layout: Layout) -> "ScorePredictor":
        """From the model of a finished run. Raises InputError when there is none, or params.yaml has changed."""
        return cls(score_model.of_project(params, layout), params.device)

    @property
    def reads_words(self) -> bool:
        """Whether text is words."""
        return self.model.encoder is not None

    @property
    def scores_words(self) -> bool:
        """Whether a line of words alone gets a score: not where inner folds found that text tells nothing."""
        return self.reads_words and "text" in self.model.description.used

    def predict(self, samples: Sequence[Sample], coverage: float = COVERAGE) -> list[Score]:
        """One score a sample, in order. Raises InputError when features are not those that the model reads."""
        if not samples:
            return []
        columns: dict[Feature, list[Any]] = {name: [getattr(sample, name) for sample in samples] for name in FEATURES}
        corpus = corpus_of({name: values for name, values in columns.items() if any(v is not None for v in values)})
        if not self.reads(corpus):
            raise self.nothing_to_read("the sample")
        return self.score(corpus, coverage, "the sample")

    def reads(self, corpus: FeatureCorpus) -> bool:
        """Whether the rows have any modality that the model reads; refused rows have reasons of their own."""
        return corpus.rows.empty or bool(set(corpus.modalities) & set(self.model.modalities))

    def nothing_to_read(self, where: str) -> InputError:
        return InputError(f"{where}: has none of {', '.join(self.model.modalities)}, which the model reads")

    def score(self, corpus: FeatureCorpus, coverage: float, where: str) -> list[Score]:
        """One score for each row of a corpus, refused ones among them, in the order of their numbers.

        At the level of groups, one for each group, in the order of their first rows; refused rows are left out of
        their groups, and a group that has no others has no score.
        Raises InputError when a modality has other columns than the model reads.
        """
        self._check(corpus, where)
        rows = average_groups(corpus) if self.model.description.level == "group" else corpus
        scores = self._scores(rows, coverage)
        faulty = self._faulty(corpus)[["row", "reason"]].itertuples(index=False)
        refused = {int(row): Score(None, None, None, {}, str(why)) for row, why in faulty}
        by_row = dict(zip(rows.rows["row"].astype(int), scores, strict=True)) | refused
        return [by_row[row] for row in sorted(by_row)]

    def _faulty(self, corpus: FeatureCorpus) -> pd.DataFrame:
        """The refused rows; at the level of groups, the first of each group of which all rows are refused."""
        if self.model.description.level == "row":
            return corpus.refused
        alone = corpus.refused[~corpus.refused["group"].isin(corpus.rows["group"])]
        return alone.drop_duplicates("group")

    def ids(self, corpus: FeatureCorpus) -> list[str]:
        """The names of what ``score`` gives, in its order; a row without an id has its number."""
        name = "group" if self.model.description.level == "group" else "id"
        rows = corpus.rows.drop_duplicates("group") if name == "group" else corpus.rows
        known = pd.concat([table[["row", name]] for table in (rows, self._faulty(corpus))]).sort_values("row")
        return [str(row) if pd.isna(name) else str(name) for row, name in known.itertuples(index=False)]

    def group_keys(self, corpus: FeatureCorpus) -> list[str | None]:
        """The group of each row, in the order of ``ids`` at the level of rows; None where the corpus names none."""
        named = corpus.rows.loc[corpus.rows["grouped"]]
        keys = dict(zip(named["row"], group_keys(named["group"]), strict=True))
        return [keys.get(row) for row in sorted([*corpus.rows["row"], *corpus.refused["row"]])]

    def _check(self, corpus: FeatureCorpus, where: str) -> None:
        """Raises InputError unless what is there has the columns of the corpus that the model was tuned on."""
        if corpus.words and "text" in self.model.modalities and not self.reads_words:
            width = self.model.description.net.columns["text"]
            raise InputError(f"{where}: text holds words, and the model reads {width} text features")
        for name, values in corpus.features.items():
            if name not in self.model.modalities or not corpus.present[name].any():
                continue
            if name == "text" and self.reads_words:
                raise InputError(f"{where}: text holds numbers, and the model reads words")
            width = self.model.description.net.columns[name]
            if values.shape[1] != width:
                raise InputError(
                    f"{where}: {name} has {values.shape[1]} values a row, and the model reads {width}; "
                    "give features of the extractor that made target.corpus"
                )

    def _scores(self, rows: FeatureCorpus, coverage: float) -> list[Score]:
        if rows.rows.empty:
            return []
        columns, used = self._columns(rows), self.model.description.used
        values = score_rows(self.model.net, columns, used)
        if not np.isfinite(values).all():
            raise InputError("the model gives numbers that are not finite; its weights are no good, so train it again")
        without: dict[Feature, np.ndarray] = {
            name: score_rows(self.model.net, columns, tuple(other for other in used if other != name)) for name in used
        }
        width = conformal_quantile(self.model.calibration, coverage)
        known = np.isfinite(width)
        scores = []
        for at, value in enumerate(values.tolist()):
            parts: dict[Feature, ModalityScore] = {
                name: self._modality_scores(name, columns, at, value, without) for name in self.model.modalities
            }
            if all(part.state != "present" for part in parts.values()):
                scores.append(Score(None, None, None, parts, f"no {', '.join(used)}"))
            else:
                low, high = (value - width, value + width) if known else (None, None)
                scores.append(Score(value, low, high, parts))
        return scores

    def _modality_scores(
        self, name: Feature, columns: FeatureColumns, at: int, value: float, without: dict[Feature, np.ndarray]
    ) -> ModalityScore:
        if not bool(columns.present[name][at]):
            return ModalityScore("absent", 0.0)
        return (
            ModalityScore("present", value - float(without[name][at]))
            if name in without
            else ModalityScore("unused", 0.0)
        )

    def _columns(self, rows: FeatureCorpus) -> FeatureColumns:
        """What the net reads: columns chosen and filled as `embed` did it, words encoded, zeros where absent."""
        count, widths = len(rows.rows), self.model.description.net.widths
        vectors: dict[str, torch.Tensor] = {}
        present: dict[str, torch.Tensor] = {}
        for name in self.model.modalities:
            if name == "text" and self.model.encoder is not None:
                lines = lines_of(rows.rows, self.model.description.level)
                vectors[name] = torch.from_numpy(encode_lines(self.model.encoder, lines, self.device))
                present[name] = torch.tensor([bool(row) for row in lines])
            elif name in rows.features and rows.present[name].any():
                row_present = torch.from_numpy(np.asarray(rows.present[name]))
                read = self.model.net.columns[name](torch.from_numpy(rows.features[name]))
                vectors[name], present[name] = torch.where(row_present[:, None], read, 0.0), row_present
            else:
                vectors[name], present[name] = torch.zeros(count, widths[name]), torch.zeros(count, dtype=torch.bool)
        return FeatureColumns(vectors, present)
