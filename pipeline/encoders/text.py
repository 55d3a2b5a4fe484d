"""Texts → vectors: a transformer whose token states are averaged.

``net`` is differentiable and is what the specialists tune; ``encode`` uses it frozen.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from pipeline.core.errors import InputError
from pipeline.core.prefetch import prefetch_map
from pipeline.encoders import openvino, weights
from pipeline.params import EmbedTextParams, Precision, Runtime

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LORA_PAIRS = (("query", "value"), ("q_lin", "v_lin"), ("q_proj", "v_proj"))
"""The query and value projections of BERT and RoBERTa, of DistilBERT, of CLIP and most later models."""

CPU = torch.device("cpu")

LEAST_TOKENS = 64
"""Matrix products of few rows take another path through MKL, which rounds in another order: below 16 rows with AVX-512,
below 56 with AVX2."""


_COMPILING = threading.Lock()


class MeanPooled(nn.Module):
    """A transformer and the mean of its token states over the attention mask."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """int64 [B, T], int64 [B, T] (1 is a token, 0 padding) → float32 [B, width]."""
        states = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state.float()
        mask = attention_mask.unsqueeze(-1).to(states.dtype)
        return (states * mask).sum(1) / mask.sum(1).clamp(min=1.0)


@dataclass(frozen=True)
class TextEncoder:
    """A text encoder.

    Attributes:
        identity: what tells its vectors from those of any other encoder.
        width: length of a vector.
        net: ``net(input_ids, attention_mask)`` → float32 [B, width].
        lora_targets: the layers that peft should adapt.
        max_tokens: longer texts are cut.
        batch_tokens: padded tokens in a batch of ``encode``.
        runtime: what computes the vectors of ``encode``; the net learns by torch.
        precision: of the matrix products of ``encode``.
        threads: how many may encode at once where OpenVINO does it.
    """

    identity: dict[str, Any]
    width: int
    net: nn.Module
    lora_targets: list[str]
    tokenizer: PreTrainedTokenizerBase
    pad_token: int
    max_tokens: int
    batch_tokens: int
    runtime: Runtime = "torch"
    precision: Precision = "fp32"
    threads: int = 1

    def tokenize(self, texts: Sequence[str]) -> list[list[int]]:
        """Token numbers with the model's marks of start and end, at most ``max_tokens`` a text."""
        return self._tokenized(texts, self.max_tokens)

    def cut(self, texts: Sequence[str]) -> int:
        """How many of the texts have more than ``max_tokens`` tokens, so that their end is not read."""
        tokens = self._tokenized(texts, self.max_tokens + 1)
        return sum(len(row) > self.max_tokens for row in tokens)

    def _tokenized(self, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
        if not texts:
            return []
        return self.tokenizer(
            list(texts), truncation=True, max_length=max_tokens, padding=False, return_attention_mask=False
        )["input_ids"]

    def collate(self, tokens: Sequence[list[int]]) -> dict[str, Tensor]:
        """Pads on the right; ``input_ids`` and ``attention_mask``, int64 [B, longest]."""
        lengths = torch.tensor([len(row) for row in tokens])
        mask = torch.arange(int(lengths.max())) < lengths[:, None]
        ids = torch.full(mask.shape, self.pad_token)
        ids[mask] = torch.tensor([token for row in tokens for token in row])
        return {"input_ids": ids, "attention_mask": mask.long()}

    @torch.inference_mode()
    def encode_tokens(self, tokens: Sequence[list[int]], device: torch.device, *, least_tokens: int = 0) -> np.ndarray:
        """One batch → float32 [B, width]. One of fewer than ``least_tokens`` is filled up with its last text."""
        lacking = max(least_tokens - sum(map(len, tokens)), 0)
        filled = [*tokens, *[tokens[-1]] * math.ceil(lacking / max(len(tokens[-1]), 1))]
        inputs = self.collate(filled)
        if self.runtime == "openvino":
            with _COMPILING:  # the first of several threads does
                compiled = self._compiled
            return compiled(**inputs)[: len(tokens)]
        inputs = {name: tensor.to(device) for name, tensor in inputs.items()}
        with torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.net.to(device).eval()(**inputs)[: len(tokens)].cpu().numpy()

    @cached_property
    def _compiled(self) -> openvino.Compiled:
        short, long = self.tokenize(["a", "a b " * self.max_tokens])
        return openvino.Compiled(
            self.net.to(CPU), self.precision, (self.collate([short, short]), self.collate([long, short])), self.threads
        )

    def encode(self, texts: Sequence[str], device: torch.device) -> np.ndarray:
        """float32 [N, width], in the order of the texts; the last digits follow what shares a batch.

        Padding is cheaper than small batches for the few texts of a prediction; see ``equal_length_batches``.
        """
        tokens = self.tokenize(texts)
        vectors, lengths = np.empty((len(tokens), self.width), dtype=np.float32), [len(row) for row in tokens]
        threads, budget = 1, self.batch_tokens
        if self.runtime == "openvino":  # torch divides a batch among its threads
            threads = self.threads
            budget = min(budget, max(math.ceil(sum(lengths) / threads), LEAST_TOKENS))
        batches = length_batches(lengths, budget)

        def encoded(batch: np.ndarray) -> np.ndarray:
            return self.encode_tokens([tokens[at] for at in batch], device)

        several = threads > 1 and len(batches) > 1
        vectors_of_batches = (
            prefetch_map(encoded, batches, workers=threads, depth=2 * threads) if several else map(encoded, batches)
        )
        for batch, encoded_texts in zip(batches, vectors_of_batches, strict=True):
            vectors[batch] = encoded_texts
        return vectors


def runs_on(runtime: Runtime, device: torch.device) -> torch.device:
    """Where vectors are made: by OpenVINO on the processor, whatever torch has."""
    return CPU if runtime == "openvino" else device


def length_batches(lengths: Sequence[int], batch_tokens: int) -> list[np.ndarray]:
    """Batches of like length, longest first, each of at most ``batch_tokens`` tokens with its padding.

    Sorting halves the padding; the longest first, because a batch that is too large for memory then fails at once. A
    text longer than the budget is a batch of its own.
    """
    order = np.argsort(-np.asarray(lengths, dtype=np.int64), kind="stable")
    batches, at = [], 0
    while at < len(order):
        size = max(batch_tokens // max(lengths[order[at]], 1), 1)
        batches.append(order[at : at + size])
        at += size
    return batches


def equal_length_batches(lengths: Sequence[int], batch_tokens: int) -> list[np.ndarray]:
    """Batches of texts of one length, longest first, each of at most ``batch_tokens`` tokens.

    Nothing is padded, so that no sum over a text's tokens is rounded by what else is in its batch.
    """
    of_length = np.asarray(lengths, dtype=np.int64)
    batches: list[np.ndarray] = []
    for length in np.unique(of_length)[::-1]:
        rows, size = np.flatnonzero(of_length == length), max(batch_tokens // max(int(length), 1), 1)
        batches += [rows[at : at + size] for at in range(0, len(rows), size)]
    return batches


def load(params: EmbedTextParams) -> TextEncoder:
    """Loads the encoder that params ``embed.text`` names, frozen or not as the caller likes; on the processor.

    Raises InputError when the model cannot be found, is damaged, or is not a text encoder.
    """
    resolved = weights.resolve("embed.text", params.encoder, params.revision, packaged="minilm")
    return build(resolved, params, f"params.yaml: embed.text.encoder: {params.encoder}")


def build(resolved: weights.Weights, params: EmbedTextParams, where: str) -> TextEncoder:
    """The encoder of these weights; of ``params`` the limits count. Raises InputError, which begins with ``where``."""
    from transformers import AutoModel, AutoTokenizer

    if params.runtime == "openvino":
        openvino.package()
    with weights.loading(where):
        tokenizer = AutoTokenizer.from_pretrained(resolved.path, local_files_only=True, trust_remote_code=False)
        model: PreTrainedModel = weights.load_model(AutoModel, resolved)
    if getattr(model, "pooler", None) is not None:
        setattr(model, "pooler", None)  # noqa: B010  # unused, and random where the checkpoint has none
    if model.config.is_encoder_decoder or not hasattr(model.config, "hidden_size"):
        raise InputError(f"{where}: a {model.config.model_type} is not a text encoder")
    _check_tokens(model, tokenizer, where)
    width = model.config.hidden_size
    computed = {"runtime": (params.runtime, "torch"), "precision": (params.precision, "fp32")}
    limits = (params.max_tokens, tokenizer.model_max_length, getattr(model.config, "max_position_embeddings", None))
    max_tokens = min(limit for limit in limits if limit)
    return TextEncoder(
        identity=resolved.identity
        | {"width": width, "max_tokens": max_tokens, "pooling": "mean over tokens"}
        | {name: value for name, (value, usual) in computed.items() if value != usual},
        width=width,
        net=MeanPooled(model).eval(),
        lora_targets=_lora_targets(model),
        tokenizer=tokenizer,
        # Padding is masked, so without a token of its own any will do.
        pad_token=pad_token if isinstance(pad_token := tokenizer.pad_token_id, int) else 0,
        max_tokens=max_tokens,
        batch_tokens=params.batch_tokens,
        runtime=params.runtime,
        precision=params.precision,
        threads=torch.get_num_threads(),
    )


def _check_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, where: str) -> None:
    """Raises InputError where a word has a number that the model has no vector for."""
    special = set(tokenizer.all_special_tokens)
    largest = max((number for token, number in tokenizer.get_vocab().items() if token not in special), default=0)
    embeddings: Any = model.get_input_embeddings()
    known = embeddings.weight.shape[0]
    if largest >= known:
        raise InputError(f"{where}: its tokenizer has a token {largest}, and its model vectors for {known}")


def _lora_targets(model: nn.Module) -> list[str]:
    """The query and value projections if they have a known name, otherwise every linear layer of the attention."""
    paths = [path for path, module in model.named_modules() if isinstance(module, nn.Linear)]
    names = {path.rpartition(".")[2] for path in paths}
    known = next((list(pair) for pair in LORA_PAIRS if names.issuperset(pair)), None)
    return known or sorted({path.rpartition(".")[2] for path in paths if "attn" in path or "attention" in path})
