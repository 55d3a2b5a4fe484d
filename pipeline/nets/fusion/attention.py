"""Modalities that attend to each other."""

import torch
from jaxtyping import Float
from torch import Tensor, nn


class Attention(nn.Module):
    """A pre-norm transformer layer over the tokens and a summary token, which is what comes out.

    Cross-modal attention as in Tsai et al. 2019, with one token a modality.

    Args:
        modalities: how many tokens.
        width: of a token, a multiple of ``heads``.
    """

    def __init__(self, modalities: int, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.out_width = width
        self.identity = nn.Parameter(0.02 * torch.randn(modalities, width))
        self.summary = nn.Parameter(0.02 * torch.randn(width))
        self.attend = nn.TransformerEncoderLayer(
            width, heads, 2 * width, dropout, activation="gelu", batch_first=True, norm_first=True
        )

    def forward(self, tokens: Float[Tensor, "batch modalities width"]) -> Float[Tensor, "batch width"]:
        summary = self.summary.expand(tokens.shape[0], 1, -1)  # len() would fix the batch of an ONNX export
        # What the layer makes of the summary; it would make as much of each token, which nobody reads.
        layer = self.attend
        read = layer.norm1(torch.cat([summary, tokens + self.identity], dim=1))
        attended = layer.self_attn(read[:, :1], read, read, need_weights=False)[0]
        summary = summary + layer.dropout1(attended)
        hidden = layer.dropout(layer.activation(layer.linear1(layer.norm2(summary))))
        return (summary + layer.dropout2(layer.linear2(hidden)))[:, 0]
