"""Tiny encoders with random weights, saved the way transformers saves real ones."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer, models
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    DistilBertConfig,
    DistilBertModel,
    DistilBertTokenizer,
    WhisperConfig,
    WhisperFeatureExtractor,
    WhisperForConditionalGeneration,
    WhisperModel,
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
SPEECH_WIDTH = 16
SPEECH_SECONDS = 2
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


SAYS = ("so", "happy", "today")
"""What ``speaking`` hears in whatever is no silence."""


def speaking(folder: Path, says: Sequence[str] = SAYS, *, nobody: bool = False, seconds: int = SPEECH_SECONDS) -> Path:
    """A Whisper that hears ``says``, in German, in every window; or with ``nobody``, that nobody speaks, all the same.

    Every layer of its decoder adds nothing, so that the vector of a position decides which token follows it.
    """
    marks = ["<pad>", "<|startoftranscript|>", "<|endoftext|>", "<|en|>", "<|de|>", "<|translate|>", "<|transcribe|>"]
    names = [*marks, "<|nospeech|>", "<|notimestamps|>", *dict.fromkeys(says)]
    tokens = {name: at for at, name in enumerate(names)}
    width = 32
    half: dict[str, Any] = {"layers": 1, "attention_heads": 1, "ffn_dim": 8}
    config = whisper_config(
        len(tokens), width, seconds, half, max_target_positions=64, suppress_tokens=[], begin_suppress_tokens=[]
    )
    torch.manual_seed(0)
    net: Any = WhisperForConditionalGeneration(config)
    decoder = net.model.decoder
    with torch.no_grad():
        for layer in decoder.layers:
            for linear in (layer.self_attn.out_proj, layer.encoder_attn.out_proj, layer.fc2):
                linear.weight.zero_()
                linear.bias.zero_()
        decoder.embed_tokens.weight.copy_(torch.eye(len(tokens), width))
        decoder.embed_positions.weight.zero_()
        # After the prompt of four (start, language, task, no time stamps), its last position decides the first word.
        follows = ["<|nospeech|>" if nobody else "<|de|>", "<pad>", "<pad>", *says, "<|endoftext|>"]
        for at, name in enumerate(follows):
            decoder.embed_positions.weight[at, tokens[name]] = 60.0
        decoder.embed_positions.weight[0, tokens["<|de|>"]] = 40.0 if nobody else 60.0
    net.save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=seconds).save_pretrained(folder)
    words = Tokenizer(models.WordLevel(tokens, unk_token="<pad>"))
    words.add_special_tokens([name for name in names if name.startswith("<")])
    words.save(str(folder / "tokenizer.json"))
    return folder


def whisper_config(words: int, width: int, seconds: int, half: dict[str, Any], **rest: Any) -> WhisperConfig:
    """Of so many tokens, the first three of which are padding, start and end; ``half`` is what both halves are of."""
    return WhisperConfig(
        vocab_size=words,
        num_mel_bins=20,
        d_model=width,
        max_source_positions=50 * seconds,
        pad_token_id=0,
        bos_token_id=1,
        eos_token_id=2,
        decoder_start_token_id=1,
        **{f"{part}_{name}": value for part in ("encoder", "decoder") for name, value in half.items()},
        **rest,
    )


def whisper(folder: Path, seconds: int = SPEECH_SECONDS) -> Path:
    """A Whisper whose states have ``SPEECH_WIDTH`` and whose windows last so many ``seconds``."""
    torch.manual_seed(0)
    half: dict[str, Any] = {"layers": 2, "attention_heads": 2, "ffn_dim": 32}
    config = whisper_config(50, SPEECH_WIDTH, seconds, half, max_target_positions=16)
    WhisperModel(config).save_pretrained(folder)
    WhisperFeatureExtractor(feature_size=20, chunk_length=seconds).save_pretrained(folder)
    return folder
