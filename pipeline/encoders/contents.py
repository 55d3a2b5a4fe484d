"""Each modality's content, with the encoder that params name."""

from pathlib import Path

import torch

from pipeline.core.schemas import Modality
from pipeline.encoders import image, streams, text
from pipeline.encoders.clip_streams import clip_files
from pipeline.encoders.sources import Steps, TextContents, picture_files
from pipeline.params import EmbedParams


def load_steps(modality: Modality, embed: EmbedParams, folder: Path, device: torch.device) -> Steps:
    """Loads the encoder of a modality, whose files lie in ``folder``. Raises InputError as ``load`` of the encoder."""
    if modality == "text":
        return TextContents(text.load(embed.text), device)
    if modality == "image":
        return picture_files(image.load(embed.image), folder, device, embed)
    return clip_files(streams.load(embed.video), folder, device, embed)
