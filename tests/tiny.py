"""Tiny encoders with random weights, saved the way transformers saves real ones."""

from pathlib import Path

import torch
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizer,
)

WORDS = [
    "i",
    "am",
    "so",
    "happy",
    "sad",
    "angry",
    "today",
    "the",
    "cat",
    "dog",
    "is",
    "not",
    "very",
    "!",
    "?",
    ".",
    "me",
    "rn",
]
VOCABULARY = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS, *"!?.abcdefghijklmnopqrstuvwxyz"]
TEXT_WIDTH = 16
CLIP_WIDTH = 12
CLIP_SIZE = 32


def distilbert(folder: Path) -> Path:
    """A DistilBERT with two layers and vectors of ``TEXT_WIDTH``, and its tokenizer."""
    torch.manual_seed(0)
    config = DistilBertConfig(
        vocab_size=len(VOCABULARY), dim=TEXT_WIDTH, n_layers=2, n_heads=2, hidden_dim=32, max_position_embeddings=64
    )
    DistilBertModel(config).save_pretrained(folder)
    vocabulary = {token: at for at, token in enumerate(VOCABULARY)}
    DistilBertTokenizer(vocab=vocabulary, model_max_length=64).save_pretrained(folder)
    return folder


def clip(folder: Path) -> Path:
    """A CLIP whose projected vectors have ``CLIP_WIDTH`` and whose pictures are ``CLIP_SIZE`` pixels wide."""
    torch.manual_seed(0)
    layers = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = CLIPConfig(
        text_config=layers | {"vocab_size": 50, "projection_dim": CLIP_WIDTH},
        vision_config=layers | {"image_size": CLIP_SIZE, "patch_size": 8, "projection_dim": CLIP_WIDTH},
        projection_dim=CLIP_WIDTH,
    )
    CLIPModel(config).save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": CLIP_SIZE}, crop_size={"height": CLIP_SIZE, "width": CLIP_SIZE}
    ).save_pretrained(folder)
    return folder
