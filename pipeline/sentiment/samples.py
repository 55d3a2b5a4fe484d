"""The rows of a feature corpus beside the samples that were made of them."""

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from pipeline.core import artifacts
from pipeline.core.errors import InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import Feature
from pipeline.corpora.features import FeatureCorpus, average_groups, only_scored, read_corpus
from pipeline.params import SourceParams, TargetParams


@dataclass(frozen=True)
class CorpusSamples:
    """A corpus beside its sample table: M rows of the corpus, N samples.

    Attributes:
        name: ``source`` or ``target``.
        corpus: the rows of the corpus that the samples are made of.
        at: int [M]: the sample of each.
        sample_ids: N strings.
        fit: bool [N]: samples that columns are judged and filled by, which are those outside the test part.
        grouped: whether a sample is the mean of several rows.
    """

    name: str
    corpus: FeatureCorpus
    at: np.ndarray
    sample_ids: np.ndarray
    fit: np.ndarray
    grouped: bool

    @classmethod
    def read(cls, name: str, params: SourceParams | TargetParams, layout: Layout) -> "CorpusSamples":
        """Raises InputError when the corpus lacks rows that it had when it was split."""
        path = layout.root / params.corpus
        corpus = read_corpus(path, f"{name}.corpus")
        corpus = only_scored(corpus) if name == "source" else corpus
        table = artifacts.read_scored(layout.table(name))
        key = "group" if params.level == "group" else "id"
        at = pd.Index(table["sample_id"]).get_indexer(pd.Index(corpus.rows[key]))
        if len(set(at[at >= 0].tolist())) < len(table):
            raise InputError(f"{path}: does not have all rows of {layout.table(name)}; run `dvc repro split`")
        corpus = corpus.where(at >= 0)
        fit = (table["split"] != "test").to_numpy()
        return cls(name, corpus, at[at >= 0], table["sample_id"].to_numpy(), fit, params.level == "group")

    def samples(self, modality: Feature, columns: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The modality's columns, float32 [N, columns], NaN where not finite, and bool [N]: where it is present."""
        values, present = self.corpus.features[modality][:, columns], self.corpus.present[modality]
        if self.grouped:
            means = average_groups(replace(self.corpus, features={modality: values}, present={modality: present}))
            order = pd.Index(means.rows["id"]).get_indexer(pd.Index(self.sample_ids))
            return means.features[modality][order], means.present[modality][order]
        order = np.argsort(self.at)
        return values[order], present[order]

    def texts(self) -> list[list[str]]:
        """The texts of the rows of each sample, in the order of the file."""
        texts: list[list[str]] = [[] for _ in self.sample_ids]
        for at, value in zip(self.at, self.corpus.rows["text"], strict=True):
            if value is not None:
                texts[at].append(value)
        return texts
