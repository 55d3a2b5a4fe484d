"""What a score is made with: the fine-tuned net, the text encoder where text holds words, and how far it may be off.

Built from the files of `finetune_e2e`, wherever they lie: in a project or in a bundle.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from pipeline.core import artifacts, off
from pipeline.core.descriptions import NAME, read_description
from pipeline.core.errors import DamagedError, InputError
from pipeline.core.files import content_digest
from pipeline.core.layout import Layout
from pipeline.core.schemas import Feature, subset_name
from pipeline.encoders import text
from pipeline.encoders.text import TextEncoder
from pipeline.nets.transfer import TransferNet
from pipeline.params import Params
from pipeline.scoring.score_intervals import calibration
from pipeline.sentiment.descriptions import FinetunedDescription
from pipeline.sentiment.finetuned import load_finetuned
from pipeline.sentiment.text_model import text_model_folder
from pipeline.sentiment.variants import Variant
from pipeline.training.checkpoint import REMEDY, load_weights


@dataclass(frozen=True)
class ScoreModel:
    """Everything behind a score.

    Attributes:
        encoder: makes the text vectors that the net reads; None where text is no words.
        calibration: ascending absolute residuals of the calibration rows, each scored by itself.
        calibration_in_groups: the same where rows were moved by their groups; empty where the model moves none.
        identity: sha256 over the files that the model was built from.
    """

    net: TransferNet
    description: FinetunedDescription
    encoder: TextEncoder | None
    calibration: np.ndarray
    calibration_in_groups: np.ndarray
    identity: str

    @property
    def modalities(self) -> tuple[Feature, ...]:
        return self.description.modalities


def of_project(params: Params, layout: Layout) -> ScoreModel:
    """The fine-tuned model of a finished run.

    Raises InputError when a file is missing, the track is off, or params.yaml names another text encoder than that of
    the training.
    """
    off.refuse_off("sentiment", layout)
    folder = layout.model("finetune_e2e")
    description = read_description(folder, FinetunedDescription)
    words = description.words
    encoder = None if words is None else text.load(params.embed.text)
    if words is not None and encoder is not None and words.encoder != artifacts.rounded(encoder.identity):
        raise InputError(f"{layout.params}: embed.text: not what the model was trained with; run `dvc repro`")
    predictions = artifacts.read_scores(layout.predictions("finetune_e2e"))
    table, subset = artifacts.read_scored(layout.table("target")), subset_name(description.modalities)
    moved, alone = (Variant(step, subset).of(predictions) for step in ("finetuned", "finetuned_alone"))
    residuals = calibration(alone if len(alone) else moved, table)
    in_groups = None if description.context is None else calibration(moved, table)
    return build(folder, encoder, text_model_folder(layout), residuals, in_groups)


def build(
    folder: Path,
    encoder: TextEncoder | None,
    source_text: Path,
    residuals: np.ndarray,
    residuals_in_groups: np.ndarray | None = None,
) -> ScoreModel:
    """Rebuilds the net from its JSON and gives the encoder the weights that belong to it.

    Args:
        folder: ``model.json`` and ``model.safetensors`` of the fine-tuned net.
        encoder: of the kind that the description names, as it was loaded; None where text is no words.
        source_text: the folder of the source's text model, for an encoder that was tuned on the source's words.
        residuals, residuals_in_groups: ascending; of rows by themselves, and moved by their groups.
    """
    description = read_description(folder, FinetunedDescription)
    weights = None if description.words is None else description.words.weights
    if (weights is None) != (encoder is None):
        raise DamagedError(f"{folder / NAME}: reads words where there is no encoder, or none where there is", REMEDY)
    if encoder is not None and description.net.widths["text"] != encoder.width:
        width = description.net.widths["text"]
        raise DamagedError(f"{folder / NAME}: reads {width} columns of an encoder of {encoder.width}", REMEDY)
    files = [folder / "model.json", folder / "model.safetensors"]
    if encoder is not None and weights == "source":
        load_weights(source_text, encoder.net, "encoder")
        files.append(source_text / "model.safetensors")
    net = load_finetuned(folder, encoder.net if encoder is not None and weights == "target" else None)
    identity = artifacts.digest(f"{at} {content_digest(file)}" for at, file in enumerate(files))
    in_groups = np.zeros(0) if residuals_in_groups is None else residuals_in_groups
    return ScoreModel(net, description, encoder, residuals, in_groups, identity)
