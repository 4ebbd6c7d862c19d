"""How large a model is and what training it takes, from its config alone: no weight is made and no data touched.

What autograd keeps of a step is not estimated but measured: the step runs on tensors that have shapes and no memory.
Shape letters: B samples, S positions, P tokens of an image, H hidden.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd.graph import saved_tensors_hooks

from mmconvert import api
from mmconvert.errors import UsageError
from mmconvert.paths import ABSENT, get
from mmsimple import sections
from mmsimple.attention import Attention
from mmsimple.config import ModelConfig, MultimodalConfig, ViTConfig
from mmsimple.element_types import HALVES
from mmsimple.freeze import Freezing, freeze, summarised
from mmsimple.llama import LlamaModel, TransformerDecoder
from mmsimple.load import build
from mmsimple.loss import token_losses
from mmsimple.model import MultimodalModel
from mmsimple.train.reading import read_run
from mmsimple.vit import TransformerEncoder, ViTClassifier, ViTModel
from mmsimple.workload import Half, Workload, workload

FLOAT32 = 4
MOMENTS = 2


@dataclass(frozen=True)
class Size:
    """Parameters part by part, and bytes: those of a training step's peak that can be known beforehand.

    Weights, gradients and optimizer state are float32. `activations` is what autograd keeps from forward to backward,
    which under autocast includes copies of weights in the smaller type.
    """

    freezing: Freezing
    workload: Workload
    weights: int
    gradients: int
    optimizer: int
    activations: int

    @property
    def total(self) -> int:
        return self.weights + self.gradients + self.optimizer + self.activations


@dataclass(frozen=True)
class Sized:
    """The size of the model in a file, under mmconvert's name for it; `is_run`: the file is of a run, all checked."""

    path: str
    model: str
    size: Size
    is_run: bool

    @property
    def assumptions(self) -> tuple[str, ...]:
        """What the bytes stand for, in sentences."""
        work = self.size.workload
        samples = f"a step of {work.batch_size} sample{'s' if work.batch_size > 1 else ''} ({work.batch_size_from})"
        if work.sequence_length:
            samples += f" of {work.sequence_length} positions ({work.sequence_length_from})"
        return (
            "weights in float32; so are gradients and AdamW's two moments, for what trains",
            f"{samples}, without padding{', an image in each' if work.images_per_sample else ''}",
            f"computed in {work.half} ({work.half_from}), the copies of weights in that type being activations too"
            if work.half
            else f"computed in float32 ({work.half_from})",
            "activations are what is kept for the backward pass without activation checkpointing, attention keeping no "
            "scores; what a device needs in passing comes on top",
            "every field of the file is checked, data and checkpoints that it names are not"
            if self.is_run
            else "the file describes no run, so that only its model is checked",
        )


def size(config: ModelConfig, workload: Workload, where: str) -> Size:
    """The size of a model and of a step of its training, with AdamW.

    Raises, beginning with the file `where`, InputRefused and UsageError for patterns that cannot be frozen (see
    `freeze`), and UsageError for samples that no image fits into.
    """
    with torch.device("meta"):
        model = build(config)
    if isinstance(model, MultimodalModel):
        tokens = model.tokens_per_image
        if tokens > workload.sequence_length:
            raise UsageError(
                f"{where}: a sample of {workload.sequence_length} positions ({workload.sequence_length_from}) has no "
                f"room for an image, which takes {tokens}; give --sequence-length"
            )
        freeze(model, model.config.freeze, f"{where}: freeze")
    freezing = summarised(model)
    return Size(
        freezing=freezing,
        workload=workload,
        weights=FLOAT32 * freezing.parameters,
        gradients=FLOAT32 * freezing.trained,
        optimizer=FLOAT32 * MOMENTS * freezing.trained,
        activations=_activations(model.train(), workload),
    )


def size_of_file(path: Path, *, batch_size: int | None = None, sequence_length: int | None = None) -> Sized:
    """The size of the model that a params file describes, or a CS checkpoint's own.

    Of a whole run every field is checked. Raises UsageError for what is no CS params file, and what `sections.read`,
    `read_run`, `workload` and `size` raise.
    """
    found = api.recognise(path)
    if found.node.format != "cs":
        raise UsageError(
            f"{path}: is no Cerebras (CS) params file; `mmconvert convert --to cs` makes one of a checkpoint"
        )
    where = found.config_from
    config = sections.read(found.node.model, found.config, where)
    is_run = get(found.params, "trainer.init.loop") is not ABSENT
    if is_run and isinstance(config, MultimodalConfig):
        read_run(found.params, config, where)
    work = workload(config, found.params, where, batch_size=batch_size, sequence_length=sequence_length)
    return Sized(str(path), found.node.model, size(config, work, where), is_run)


def _activations(model: nn.Module, workload: Workload) -> int:
    """What autograd keeps of one step of a model that was built on the meta device.

    Fake tensors instead of meta tensors, because they take the kernels of a real device: one for attention that keeps
    the sum of a query's scores and not the scores, as those of GPUs do. The one for CPUs has no dropout, which theirs
    draw again from a seed; without it here, as much is kept.
    """
    for module in model.modules():
        if isinstance(module, Attention):
            module.dropout = 0.0
    repeated = _shorten(model)
    with FakeTensorMode():
        _to_cpu(model)
        try:
            return kept(model.parameters(), lambda: step(model, workload), workload.half, repeated)
        except RuntimeError as error:
            # torch 2.10 counts the elements of a tensor in 64 bits, and says so when they do not do.
            if "overflow" not in str(error):
                raise
            problem = "a step of this size is more than torch can reckon with"
            raise UsageError(f"{problem}; try a smaller --batch-size or --sequence-length") from error


class _Passing(nn.Module):
    """What stands in place of a layer that is not computed."""

    def forward(self, x: Tensor, *_: object) -> Tensor:
        return x


def _shorten(model: nn.Module) -> dict[nn.Module, int]:
    """Take out layers that keep just what the one before them keeps: how often those that are left are to count more.

    A thousand layers would take a quarter of a minute. Of layers in a row that are alike, the first may be the first
    that gradients pass through, the second and all after it keep the same.
    """
    repeated = {}
    for module in model.modules():
        if isinstance(module, TransformerDecoder | TransformerEncoder):
            last = module.last_layer if isinstance(module, TransformerEncoder) else None
            computed = list(module.layers)[: None if last is None else last + 1]
            for _, group in groupby(enumerate(computed), lambda each: _alike(each[1])):
                _, *others = group
                for at, _ in others[1:]:
                    module.layers[at] = _Passing()
                if others:
                    repeated[others[0][1]] = len(others) - 1
    return repeated


def _alike(layer: nn.Module) -> list[bool]:
    """What layers of one stack differ in."""
    return [each.requires_grad for each in layer.parameters()] + [each.training for each in layer.modules()]


def kept(
    parameters: Iterable[Tensor],
    compute: Callable[[], Tensor],
    half: Half | None = None,
    repeated: Mapping[nn.Module, int] | None = None,
) -> int:
    """The bytes that autograd keeps of what `compute` does, parameters aside; memory that tensors share counts once.

    What a module of `repeated` keeps counts so many times more.
    """
    own = {parameter.untyped_storage()._cdata for parameter in parameters}
    storages: dict[int, torch.UntypedStorage] = {}

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in own:
            # Held, or another might get its address.
            storages[storage._cdata] = storage
        return tensor

    def total() -> int:
        return sum(storage.nbytes() for storage in storages.values())

    more = 0

    def count(layer: nn.Module, sign: int) -> None:
        nonlocal more
        more += sign * (repeated or {})[layer] * total()

    for layer in repeated or ():
        layer.register_forward_pre_hook(lambda layer, *_: count(layer, -1))
        layer.register_forward_hook(lambda layer, *_: count(layer, 1))
    dtype = None if half is None else HALVES[half]
    with saved_tensors_hooks(pack, lambda tensor: tensor), torch.autocast("cpu", dtype, enabled=half is not None):
        compute()
    return total() + more


def _to_cpu(model: nn.Module) -> None:
    """Parameters without memory on a real device, in place of those on the meta device."""
    for module in model.modules():
        for name, parameter in list(module.named_parameters(recurse=False)):
            empty = torch.empty(parameter.shape, device="cpu")
            setattr(module, name, nn.Parameter(empty, requires_grad=parameter.requires_grad))


def step(model: nn.Module, workload: Workload) -> Tensor:
    """A full batch's loss: S positions in every sample, all of which count, the first P of them an image.

    That is what `MultimodalModel.loss` computes, but for what depends on the data: where images stand, and which tokens
    count. Of an encoder alone it is the output.
    """
    samples, length = workload.batch_size, workload.sequence_length
    match model:
        case MultimodalModel():
            features = model.image_model(_images(model.config.image_models[0].encoder, samples))  # [B, P, H]
            text = model.text_model.embed(torch.zeros(samples, length, dtype=torch.long))
            embeddings = torch.cat((features.to(text.dtype), text[:, features.shape[1] :]), dim=1)
            return _decoder_loss(model.text_model, embeddings)
        case LlamaModel():
            return _decoder_loss(model, model.embed(torch.zeros(samples, length, dtype=torch.long)))
        case ViTClassifier() | ViTModel():
            encoder = model.config if isinstance(model, ViTModel) else model.config.encoder
            output: Tensor = model(_images(encoder, samples))
            return output
    raise TypeError(f"{type(model).__name__} is no model that a config describes")


def _decoder_loss(decoder: LlamaModel, embeddings: Tensor) -> Tensor:
    """The mean over all tokens, [B, S, H] -> a scalar."""
    tokens = embeddings.shape[:2]
    hidden_states = decoder.decode(embeddings, torch.zeros(tokens, dtype=torch.long)).flatten(0, 1)
    labels = torch.zeros(tokens.numel(), dtype=torch.long)
    return token_losses(decoder.lm_head(hidden_states), labels).mean()


def _images(config: ViTConfig, count: int) -> Tensor:
    return torch.zeros(count, config.num_channels, *config.image_size)
