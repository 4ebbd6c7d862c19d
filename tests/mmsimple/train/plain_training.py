"""The runs of `traces` once more, without any of mmsimple but its batches: transformers' LLaVA, AdamW written out."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import chain, islice, repeat
from math import cos, pi, sqrt
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.nn import functional as F

from mmsimple.data.loader import Loader
from mmsimple.model import Batch
from tests.mmsimple.train.traces import LLAVA, UPDATES, Kind, Values

# What the original calls the parts of a model, and what transformers does.
PARTS = {
    "model.mm_projector.0": "model.multi_modal_projector.linear_1",
    "model.mm_projector.2": "model.multi_modal_projector.linear_2",
    "model": "model.language_model",
    "lm_head": "lm_head",
}
FROZEN = {1: ("model.vision_tower", "model.language_model", "lm_head"), 2: ("model.vision_tower",)}
# The byte 0, which no text has, stands for images.
IMAGE_ID = 3
END = 2
# Rates of the small params files: up in 4 updates, down in 36.
HIGHEST, LOWEST = {1: 1e-3, 2: 5e-4}, 5e-5


def llava() -> Any:
    """The golden weights in transformers' model."""
    from transformers import CLIPVisionModel, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    tower = CLIPVisionModel.from_pretrained(LLAVA / "image_model")
    text = LlamaConfig.from_pretrained(LLAVA / "text_model_llava")
    model = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=tower.config,
            text_config=text,
            image_token_index=IMAGE_ID,
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
        )
    )
    tensors = {f"model.vision_tower.{name}": each for name, each in tower.state_dict().items()}
    for name, each in load_file(LLAVA / "text_model_llava" / "model.safetensors").items():
        part = next(part for part in PARTS if name.startswith(f"{part}."))
        tensors[PARTS[part] + name.removeprefix(part)] = each
    model.load_state_dict(tensors)
    return model.train()


def trace(kind: Kind, loader: Loader) -> Values:
    """The loss and the gradients' norm of each update with the batches that a loader gives."""
    model = llava()
    trained = [each for name, each in model.named_parameters() if not name.startswith(FROZEN[kind.phase])]
    adam = {"betas": [0.9, 0.999], "eps": 1e-8, "weight_decay": 0.0, **kind.changes.get("init.optimizer.AdamW", {})}
    highest_norm = kind.changes.get("init.precision.max_gradient_norm", 1.0)
    batches = stream(loader)
    moments = [(torch.zeros_like(each), torch.zeros_like(each)) for each in trained]
    losses, norms = [], []
    for update in range(UPDATES):
        taken = list(islice(batches, kind.changes.get("init.loop.grad_accum_steps", 1)))
        loss = torch.cat([token_losses(model, batch) for batch in taken]).mean()
        gradients = torch.autograd.grad(loss, trained)
        norm = sqrt(sum(float(each.square().sum()) for each in gradients))
        losses.append(loss.item())
        norms.append(norm)
        for weight, gradient, (first, second) in zip(trained, gradients, moments, strict=True):
            cut = gradient * min(1.0, highest_norm / (norm + 1e-6))
            adamw(weight, cut, first, second, update + 1, rate(kind.phase, update), **adam)
    return {"loss": losses, "gradient_norm": norms}


def stream(loader: Loader) -> Iterator[Batch]:
    return chain.from_iterable(repeat(loader))


def token_losses(model: Any, batch: Batch) -> Tensor:
    """The cross entropy of each token that is learned, [T], whatever the labels say."""
    ids = batch.text_input_ids.long()
    assert batch.token_modality_idx is not None
    assert batch.loss_mask is not None
    assert not (ids == IMAGE_ID).any()
    is_image, is_learned = batch.token_modality_idx == 1, batch.loss_mask == 1
    # Each position learns the token after it; the last token of a text, which ends its last answer, has no position.
    targets = ids.roll(-1, dims=1)
    last = is_learned.int().cumsum(1).argmax(1)
    targets[torch.arange(len(ids)), last] = END
    images = None
    if batch.image_data is not None:
        images = batch.image_data[is_image.any(-1), 0]
    logits = model(input_ids=ids.masked_fill(is_image, IMAGE_ID), pixel_values=images).logits
    return F.cross_entropy(logits[is_learned], targets[is_learned], reduction="none")


@torch.no_grad()
def adamw(
    weight: Tensor,
    gradient: Tensor,
    first: Tensor,
    second: Tensor,
    update: int,
    rate: float,
    *,
    betas: Iterable[float],
    eps: float,
    weight_decay: float,
) -> None:
    """CS's rule, in place; biases and the weights of norms, which are vectors, do not decay."""
    b1, b2 = betas
    first.mul_(b1).add_((1 - b1) * gradient)
    second.mul_(b2).add_((1 - b2) * gradient * gradient)
    step = first / (second.sqrt() + eps) * (sqrt(1 - b2**update) / (1 - b1**update))
    decay = weight_decay * weight if weight.dim() > 1 else 0.0
    weight -= rate * (step + decay)


def rate(phase: int, update: int) -> float:
    highest = HIGHEST[phase]
    if update < 4:
        return highest * update / 4
    return LOWEST + (highest - LOWEST) * (1 + cos(pi * (update - 4) / 36)) / 2
