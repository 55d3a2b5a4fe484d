"""Every path that the pipeline reads or writes, in one place."""

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs


@dataclass(frozen=True)
class Layout:
    """Paths under one project root; nothing is created here."""

    root: Path = Path()

    @property
    def params(self) -> Path:
        return self.root / "params.yaml"

    @property
    def dvc_lock(self) -> Path:
        """What DVC wrote down of the last run: of each stage the params, and digests of what it read and wrote."""
        return self.root / "dvc.lock"

    @property
    def sample_posts(self) -> Path:
        """The built-in example corpus of posts: ``manifest.csv``, ``images/``, ``videos/``."""
        return self.root / "data" / "sample" / "posts"

    def sample_corpus(self, corpus: str) -> Path:
        """The built-in ``source`` or ``target`` corpus of features."""
        return self.root / "data" / "sample" / f"{corpus}.parquet"

    def table(self, corpus: str) -> Path:
        """The canonical sample table of a corpus, one row a sample."""
        return self.root / "data" / "split" / f"{corpus}.parquet"

    @property
    def refused(self) -> Path:
        """Manifest rows that did not become samples, each with its reason."""
        return self.root / "data" / "split" / "refused.csv"

    @property
    def folds(self) -> Path:
        """Which target rows each fold's models learn from, choose on and are scored on."""
        return self.root / "data" / "split" / "target_folds.parquet"

    def embeddings(self, corpus: str, modality: str) -> Path:
        return self.root / "data" / "embeddings" / corpus / f"{modality}.parquet"

    def model(self, stage: str) -> Path:
        return self.root / "models" / stage

    def predictions(self, stage: str) -> Path:
        """Predictions of a stage's models, each row with the fold that made it; those of training rows are marked."""
        return self.model(stage) / "predictions.parquet"

    def fitted(self, stage: str) -> Path:
        """The rows that each fold's model of a stage was fitted on, which is what the leak guard reads."""
        return self.model(stage) / "fitted.parquet"

    def metrics(self, stage: str) -> Path:
        """The few numbers that a person compares between runs."""
        return self.root / "metrics" / f"{stage}.json"

    def details(self, stage: str) -> Path:
        """All that a stage measured."""
        return self.root / "metrics" / "details" / f"{stage}.json"

    def plots(self, stage: str) -> Path:
        return self.root / "plots" / stage

    def lock(self, stage: str) -> Path:
        """Held by the process that runs a stage; beside the outputs, for DVC deletes those before the stage runs."""
        return self.root / f".{stage}.lock"

    @property
    def project_files(self) -> tuple[Path, ...]:
        """The files and folders of the project itself, which no report or table of a user's is written over."""
        files = [self.params, self.root / "dvc.yaml", self.dvc_lock]
        folders = [self.root / "data" / name for name in ("sample", "split", "embeddings")]
        return *files, *folders, *(self.root / name for name in ("models", "metrics", "plots"))

    @property
    def cache(self) -> Path:
        """Embeddings and training states that outlive a run.

        An absolute path outside the project: DVC deletes a stage's outputs before it runs, and its temporary
        workspaces see no untracked files. ``EMOCARE_CACHE`` moves it.
        """
        configured = os.environ.get("EMOCARE_CACHE")
        return Path(configured).absolute() if configured else platformdirs.user_cache_path("emocare")
