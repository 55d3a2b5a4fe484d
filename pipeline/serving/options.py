"""What ``python -m pipeline predict`` was asked, and which of its options go together; imports nothing heavy."""

import sys
from dataclasses import dataclass
from pathlib import Path

import typer

from pipeline.core.tracks import Track

TABLES = (["--manifest"], ["--corpus"])


@dataclass(frozen=True)
class PredictInputs:
    """What is to be predicted: parts of one post, a table, or JSON Lines from standard input."""

    text: str | None
    image: Path | None
    video: Path | None
    manifest: Path | None
    corpus: Path | None
    stdin: bool

    @property
    def post_options(self) -> list[str]:
        """The options that give a part of one post."""
        parts = {"--text": self.text, "--image": self.image, "--video": self.video}
        return [option for option, value in parts.items() if value is not None]

    @property
    def input_options(self) -> list[str]:
        """The options that say what to predict, one of which is enough; none for a pipe that nobody asked for."""
        others = {"--manifest": self.manifest, "--corpus": self.corpus, "--stdin": self.stdin or None}
        return [*self.post_options[:1], *(option for option, value in others.items() if value is not None)]

    @property
    def tables(self) -> list[Path]:
        return [table for table in (self.manifest, self.corpus) if table is not None]


@dataclass(frozen=True)
class PredictOptions:
    """The options of ``predict``, each under its name."""

    inputs: PredictInputs
    out: Path | None
    media: Path | None
    track: Track | None
    as_json: bool
    explain: bool
    coverage: float | None
    ray: str | None
    workers: int | None
    bundle: Path | None
    project: Path

    def check(self) -> None:
        """Raises BadParameter where options do not go together, or one is missing."""
        self._check_inputs()
        self._check_track()
        if self.coverage is not None and not 0 < self.coverage < 1:
            raise typer.BadParameter(f"--coverage: {self.coverage} is not above 0 and below 1")
        if self.ray is not None and not self.inputs.tables:
            raise typer.BadParameter("--ray is for tables: it goes with --manifest or --corpus")
        if self.as_json and not self.inputs.post_options:
            raise typer.BadParameter("--json is for one post; a table goes to --out, and a pipe is JSON Lines")
        if self.workers is not None and self.ray is None:
            raise typer.BadParameter("--workers goes with --ray")

    def _check_inputs(self) -> None:
        """There is one thing to predict, and an output exactly where that is a table."""
        named, out = self.inputs.input_options, self.out
        if len(named) > 1:
            raise typer.BadParameter(f"{named[0]} and {named[1]} do not go together")
        # Python has no standard input where the shell closed it, as `<&-` does.
        if (not named and (sys.stdin is None or sys.stdin.isatty())) or (named == ["--stdin"] and sys.stdin is None):
            raise typer.BadParameter(
                "give --text, --image or --video, a --manifest, a --corpus, or JSON Lines on standard input"
            )
        if named in TABLES and out is None:
            raise typer.BadParameter(f"{named[0]} needs --out: a .csv or .parquet file for the predictions")
        if out is not None and named not in TABLES:
            raise typer.BadParameter("--out goes with --manifest or --corpus")
        if out is not None and out.suffix not in (".parquet", ".csv"):
            raise typer.BadParameter(f"--out: {out} ends in neither .parquet nor .csv")

    def _check_track(self) -> None:
        """What is given is what the track takes."""
        inputs, corpus = self.inputs, self.inputs.corpus is not None
        if corpus and self.track == "posts":
            raise typer.BadParameter("--corpus is scored by the sentiment track; posts come as a --manifest")
        posts = inputs.manifest is not None or inputs.stdin
        if self.track == "sentiment" and not corpus and (posts or inputs.post_options != ["--text"]):
            raise typer.BadParameter("--track sentiment takes a --corpus or a --text")
        if self.explain and (corpus or self.track == "sentiment"):
            raise typer.BadParameter("--explain is for posts; a score always says what each modality did")
