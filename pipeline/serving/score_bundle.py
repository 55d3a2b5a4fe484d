"""The score model's part of a bundle: ``sentiment/`` with the fine-tuned net, ``score.json``, and the text encoder.

sentiment/          model.json, model.safetensors: the fine-tuned net
sentiment/text/     model.safetensors: the source's text model, where text vectors come from it
encoders/text/      the text encoder as it was before any tuning, with the tokenizer
score.json          how words are encoded, and the residuals that intervals come from
"""

import shutil
from pathlib import Path
from typing import Annotated, Self

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator

from pipeline.core import artifacts
from pipeline.core.descriptions import NAME, read_typed
from pipeline.core.errors import DamagedError, InputError
from pipeline.core.layout import Layout
from pipeline.core.schemas import MODALITIES
from pipeline.encoders import text, weights
from pipeline.encoders.weights import write_encoder
from pipeline.params import EmbedPixelsParams, EmbedTextParams, Params
from pipeline.sentiment.text_model import text_model_folder
from pipeline.serving import score_model
from pipeline.serving.score_model import ScoreModel

SETTINGS = "score.json"
ENCODERS = tuple(f"encoders/{name}" for name in MODALITIES)
"""The folders of encoders, each named by the first modality that it is for."""

NET, WEIGHTS = "sentiment", "model.safetensors"


class ScoreSettings(BaseModel):
    """``score.json``.

    Attributes:
        text: how words are read; ``encoder`` is a folder of the bundle. None where text is no words.
        calibration, calibration_in_groups: ascending absolute residuals of the calibration rows, as ``ScoreModel`` has
            them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    text: EmbedTextParams | None
    calibration: list[Annotated[float, Field(ge=0.0)]]
    calibration_in_groups: list[Annotated[float, Field(ge=0.0)]] = []

    @model_validator(mode="after")
    def _ascends(self) -> Self:
        if any(residuals != sorted(residuals) for residuals in (self.calibration, self.calibration_in_groups)):
            raise ValueError("calibration does not ascend")
        return self


def write(model: ScoreModel, params: Params, layout: Layout, folder: Path, shared: str | None) -> None:
    """Writes the score model into a bundle that is being made.

    Args:
        shared: the folder of the bundle in which the same text encoder lies already, or None.
    """
    (folder / NET).mkdir()
    for name in (NAME, WEIGHTS):
        shutil.copyfile(layout.model("finetune_e2e") / name, folder / NET / name)
    words, settings = model.description.words, None
    if words is not None:
        block = params.embed.text
        if shared is None:
            shared = "encoders/text"
            write_encoder(weights.resolve("embed.text", block.encoder, block.revision, "minilm"), folder / shared)
        settings = block.model_dump() | {"encoder": shared, "revision": None}
        if words.weights == "source":
            (folder / NET / "text").mkdir()
            shutil.copyfile(text_model_folder(layout) / WEIGHTS, folder / NET / "text" / WEIGHTS)
    # Not rounded, as metrics are: intervals of the bundle are those of the project to the last digit.
    residuals = {name: getattr(model, name).tolist() for name in ("calibration", "calibration_in_groups")}
    known = ScoreSettings.model_validate({"text": settings, **residuals})
    (folder / SETTINGS).write_text(known.model_dump_json(indent=2) + "\n", encoding="utf-8", newline="\n")


def read(folder: Path) -> ScoreModel:
    """Loads the score model of a bundle whose files were checked. Raises InputError when it holds none."""
    if not (folder / SETTINGS).is_file():
        raise InputError(f"{folder}: holds no model of scores; export it again with `--track sentiment`")
    settings = read_typed(folder / SETTINGS, ScoreSettings, "python -m pipeline export")
    encoder = None
    if settings.text is not None:
        here = encoder_folder(folder, SETTINGS, settings.text)
        encoder = text.build(weights.local(here, "the bundle"), settings.text, str(here))
    residuals = np.array(settings.calibration), np.array(settings.calibration_in_groups)
    return score_model.build(folder / NET, encoder, folder / NET / "text", *residuals)


def encoder_folder(folder: Path, settings: str, block: EmbedTextParams | EmbedPixelsParams) -> Path:
    """The folder of a bundle that holds an encoder: one that ``export`` made. Raises DamagedError for any other name,
    which would have an encoder loaded that the bundle's list does not name, from anywhere.
    """
    if block.encoder not in ENCODERS or block.revision is not None or not (folder / block.encoder).is_dir():
        raise DamagedError(f"{folder / settings}: {block.encoder!r} is no encoder of the bundle", "export it again")
    return folder / block.encoder


def card(model: ScoreModel, layout: Layout) -> str:
    """The score model's section of the card, as Markdown. Raises InputError when it was not evaluated."""
    scored = artifacts.read_json(layout.details("evaluate"))["sentiment"]["target"]
    description = model.description
    lines = [
        "## Scores",
        "",
        f"Scores {_each(description.level)} from {', '.join(description.used)}; any may be absent.",
    ]
    lines += [f"It learned from scores of {description.scores[0]:g} to {description.scores[1]:g}.", ""]
    lines += ["| system | Pearson's r | interval | MAE |", "| --- | --- | --- | --- |"]
    for name in ("ridge", "text_transfer", "text_tuned", "adapted", "finetuned_alone", "finetuned"):
        scores = scored.get(name, {})
        if "pearson" in scores:
            known = "pearson_ci_low" in scores
            interval = (
                f"[{scores['pearson_ci_low']:.3f}, {scores['pearson_ci_high']:.3f}]" if known else "too few groups"
            )
            lines.append(f"| {name} | {scores['pearson']:.3f} | {interval} | {scores['mae']:.3f} |")
    if description.context is not None:
        lines += ["", "Rows of a table are scored with others of their group; a row by itself as `finetuned_alone`."]
    lines += ["", f"{scored['n']} rows that nothing had seen, {scored['groups']} groups ({scored['protocol']})."]
    if conformal := scored.get("conformal"):
        lines.append(
            f"Intervals for {conformal['target']:.0%} held {conformal['coverage']:.1%} of their scores and were "
            f"{conformal['mean_width']:.2f} wide on average."
        )
    lines += ["", "Features must come from the extractors that made the target corpus: others mean something else."]
    return "\n".join(lines) + "\n"


def _each(level: str) -> str:
    return "each row" if level == "row" else "each group of rows"
