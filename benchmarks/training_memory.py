"""How much memory it takes to tune an encoder: what a graphics card must have.

    python -m benchmarks.training_memory [--encoders DistilBERT ...]

Nets in the sizes of the published ones take two steps without computing anything: torch's fake tensors have shapes
only, and its memory tracker says how many bytes tensors of these shapes hold at most: weights, gradients, optimizer and
activations. To that come two copies of the weights, which a training keeps. A card holds the same, and some hundred MB
of its own. Prints a line of Markdown an encoder: GB at most as the stages are set, and with ways to need less.
"""

import argparse
import copy
import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeCopyMode, FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.nn import functional
from transformers import AutoModel, BertConfig, CLIPConfig, CLIPModel, DistilBertConfig, MPNetConfig

from pipeline.core.errors import InputError
from pipeline.encoders.image import ClipVision
from pipeline.encoders.text import MeanPooled
from pipeline.nets.specialist import Specialist, TunedSpecialist
from pipeline.training.tuning import checkpoint, freeze_below, learner

TOKENS, PIXELS, CLASSES, FRAMES, RANK, GB = 128, 224, 5, 8, 8, 1e9
STEPS = 2
"""The first makes the optimizer's state, which the second has beside everything else."""

COPIES = 2
"""Of all weights: those of the best epoch, and for a moment those of the epoch that has ended."""


@dataclass(frozen=True)
class Way:
    """Settings of `tuned` that change how much memory it takes."""

    bf16: bool = True
    accumulate: int = 1
    checkpointing: bool = False
    half_frozen: bool = False
    lora: bool = False


WAYS = {
    "`mixed_precision: no`": Way(bf16=False),
    "bf16": Way(),
    "`accumulate: 4`": Way(accumulate=4),
    "`checkpointing`": Way(checkpointing=True),
    "half of the layers frozen": Way(half_frozen=True),
    "`lora`": Way(lora=True),
    "`lora`, `checkpointing`": Way(lora=True, checkpointing=True),
}
"""From the second on in bf16."""


@dataclass(frozen=True)
class Sized:
    """An encoder in the size of a published one: how to make it, its width, its layers, those that `lora` adapts, and
    how many rows of which inputs it learns from in a batch.
    """

    make: Callable[[], nn.Module]
    width: int
    layers: int
    targets: list[str]
    batch: int
    inputs: Callable[[int], dict[str, Tensor]]


def _tokens(rows: int) -> dict[str, Tensor]:
    tokens = torch.randint(1000, 30_000, (rows, TOKENS))
    return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def _pictures(rows: int) -> dict[str, Tensor]:
    return {"pixels": torch.rand(rows, 3, PIXELS, PIXELS)}


def _text(config: Any, width: int, layers: int, *targets: str) -> Sized:
    return Sized(lambda: MeanPooled(AutoModel.from_config(config)), width, layers, list(targets), 32, _tokens)


def _clip(batch: int) -> Sized:
    return Sized(lambda: ClipVision(CLIPModel(CLIPConfig())), 512, 12, ["q_proj", "v_proj"], batch, _pictures)


SMALL = BertConfig(hidden_size=384, num_hidden_layers=6, intermediate_size=1536)
ENCODERS = {
    "MiniLM-L6": _text(SMALL, 384, 6, "query", "value"),
    "DistilBERT": _text(DistilBertConfig(), 768, 6, "q_lin", "v_lin"),
    "MPNet-base": _text(MPNetConfig(), 768, 12, "attn.q", "attn.v"),
    "CLIP ViT-B/32": _clip(32),
    f"CLIP ViT-B/32, {FRAMES} frames of 16 clips": _clip(16 * FRAMES),
}


class Tracker(MemTracker):
    """Also of nets with frozen weights, which have no gradient to wait for; they would be an error."""

    def _track_module_params_and_buffers(self, module: nn.Module, install_grad_hooks: bool = True) -> tuple[int, int]:
        return super()._track_module_params_and_buffers(module, install_grad_hooks=False)


@contextmanager
def _no_collections() -> Iterator[None]:
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def most(sized: Sized, way: Way) -> int:
    """Bytes held at once, at most, while the encoder learns."""
    encoder = learner(sized.make(), sized.targets, "lora" if way.lora else "full", RANK)
    freeze_below(encoder, sized.layers // 2 if way.half_frozen else 0, embeddings=False)
    if way.checkpointing:
        checkpoint(encoder)
    made = TunedSpecialist(encoder, Specialist(sized.width, CLASSES)).train()
    fake = FakeTensorMode()
    with FakeCopyMode(fake):
        net = copy.deepcopy(made)
    with fake:
        optimizer = torch.optim.AdamW([of for of in net.parameters() if of.requires_grad])
        tracker = Tracker()
        tracker.track_external(net, optimizer)
        rows = sized.batch // way.accumulate
        with tracker, _no_collections():  # what they free, and when, would follow what ran before
            for _ in range(STEPS):
                tracker.reset_mod_stats()
                for _ in range(min(way.accumulate, 2)):  # the second part has the gradients of the first beside it
                    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=way.bf16):
                        logits = net(sized.inputs(rows)).float()
                    functional.cross_entropy(logits, torch.arange(rows) % CLASSES).backward()
                    tracker.reset_mod_stats()
                optimizer.step()
                optimizer.zero_grad(set_to_none=True)
        best = sum(value.numel() * value.element_size() for value in net.state_dict().values())
    held = tracker.get_tracker_snapshot("peak")
    return COPIES * best + sum(sizes["Total"] for sizes in held.values())


def _of(sized: Sized, way: Way) -> str:
    try:
        return f"{most(sized, way) / GB:.1f}"
    except InputError:  # transformers has no checkpoints in this net
        return "–"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--encoders", nargs="+", choices=list(ENCODERS), default=list(ENCODERS))
    arguments = parser.parse_args()
    print(f"| encoder | rows in a batch | {' | '.join(WAYS)} |")
    print("|---" * (len(WAYS) + 2) + "|")
    for name in arguments.encoders:
        sized = ENCODERS[name]
        found = [_of(sized, way) for way in WAYS.values()]
        print(f"| {name} | {sized.batch} | {' | '.join(found)} |", flush=True)


if __name__ == "__main__":
    main()
