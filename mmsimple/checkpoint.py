"""A checkpoint into a module, tensor by tensor, and back into a folder.

Every tensor is read straight into its place, so that loading needs little more memory than the model.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import islice
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

import torch
import yaml
from torch import Tensor, nn

from mmconvert import api
from mmconvert.api import NO_HINTS, Hints
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused, UsageError
from mmconvert.excerpt import excerpt
from mmconvert.sources import TensorRef, blocks, side_by_side
from mmsimple import sections
from mmsimple.config import ModelConfig
from mmsimple.element_types import LINEAR
from mmsimple.feed_forward import FeedForwardNetwork
from mmsimple.llama import TransformerDecoder
from mmsimple.projector import AveragePooling
from mmsimple.sections.llava_names import renamed
from mmsimple.sections.supported import Section
from mmsimple.vit import ViTModel

Container: TypeAlias = Literal["mdl", "safetensors"]
CONTAINERS = get_args(Container)
M = TypeVar("M", bound=nn.Module)
# Bytes that are read at a time: a source may need as much again to put them in order.
BLOCK = 1 << 24
# Enough names to know which ones are meant.
SHOWN = 3
# Among how many a name is looked for that is near another one. All models have fewer; a file may list a hundred
# thousand, which would take seconds.
SEARCHED = 5000
# Parts whose linear layers pass on to each other what they compute; a head is a linear layer by itself.
OF_ONE_TYPE = (ViTModel, TransformerDecoder, FeedForwardNetwork, AveragePooling, nn.Linear)


@dataclass(frozen=True)
class Opened:
    """A checkpoint of any format as a CS one, unread: its model section and its tensors under the module's names.

    `where` names the section's file to a user, `path` the whole. `assets` are the files that travel with it, by their
    names below `assets/`; `params` is the whole params document of a CS checkpoint.
    """

    model: str
    section: Section
    tensors: Mapping[str, TensorRef]
    where: str
    path: Path
    assets: Mapping[str, bytes] = field(default_factory=dict)
    params: Section = field(default_factory=dict)


def open_checkpoint(path: Path, hints: Hints = NO_HINTS, init: Mapping[str, int] | None = None) -> Opened:
    """Open what mmconvert reads: CS checkpoints as they are, others through the tables that would convert them.

    `init` gives seeds for what may be made where it is missing, such as `{"projector": 1}`. Raises InputRefused for
    what is broken, incomplete or not to be said in CS, and UsageError for `init` of what is CS already.
    """
    found = api.recognise(path, hints=hints)
    if found.node.format == "cs":
        if init:
            raise UsageError(f"{path}: is a CS checkpoint, whole or broken; init is for what a conversion lacks")
        return open_cs(found)
    # Laid out as safetensors, which hold every element type.
    options = api.Options(container="safetensors", init=dict(init or {}))
    plan = api.plan(path, None, "cs", hints=hints, options=options)
    for twins in plan.twins:
        if not _equal(twins.kept, twins.twin):
            raise InputRefused(f"{twins.twin.where}: {twins.complaint}")
    model = plan.facts["target"]["model"]
    refs = [TensorRef(each.key, each.dtype, each.shape, each.source, str(path)) for each in plan.tensors]
    section = yaml.safe_load(plan.documents["config.yaml"])["model"]
    prefix = "assets/"
    assets = {name.removeprefix(prefix): data for name, data in plan.documents.items() if name.startswith(prefix)}
    return Opened(model, section, {_name(ref.key, model): ref for ref in refs}, str(path), path, assets)


def open_cs(found: api.Checkpoint) -> Opened:
    """A CS checkpoint that mmconvert has recognised.

    Raises InputRefused for a params file alone, and for a tensor under two spellings of its name.
    """
    tensors: dict[str, TensorRef] = {}
    for key, ref in found.tensors.items():
        name = _name(key, found.node.model)
        if name in tensors:
            raise InputRefused(f"{ref.where}: {ref.key} and {tensors[name].key} are one tensor under two spellings")
        tensors[name] = ref
    if not tensors:
        raise InputRefused(f"{found.path}: is a params file alone, without weights")
    assets = {name: file.read_bytes() for name, file in found.sidecars.items()}
    return Opened(found.node.model, found.config, tensors, found.config_from, found.path, assets, found.params)


def _name(key: str, model: str) -> str:
    """The module's name for a tensor; trainers write `model.` in front of all of them."""
    key = key.removeprefix("model.")
    # CS `llava` is the same model with its parts in other places.
    return renamed(key) if model == "llava" else key


def load(
    opened: Opened,
    build: Callable[[ModelConfig], M],
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> M:
    """The module of a checkpoint, in eval mode.

    Raises InputRefused, see `sections.read` and `fill`, and UsageError for a `dtype` that weights cannot have.
    """
    if dtype is not None and not (isinstance(dtype, torch.dtype) and dtype.is_floating_point):
        raise UsageError(f"dtype is {excerpt(repr(dtype))}, but must be a type of weights, such as torch.bfloat16")
    config = sections.read(opened.model, opened.section, opened.where)
    with torch.device("meta"):
        module = build(config)
    fill(module, opened.tensors, str(opened.path), dtype=dtype, device=device)
    return module.eval()


def fill(
    module: nn.Module,
    tensors: Mapping[str, TensorRef],
    where: str,
    *,
    dtype: torch.dtype | None = None,
    device: torch.device | str = "cpu",
) -> None:
    """Give a module that was built on the meta device the tensors of its state dict's names.

    Each keeps its element type unless `dtype` is given. Of a parameter with two names, such as a tied head, one may be
    missing, and two must be equal. Raises InputRefused, naming the file or `where` and the key, for a tensor that is
    missing, of another shape or kind, unlike its second copy, of no parameter, or of another element type than linear
    layers beside it; before any is read, where headers show it.
    """
    names: dict[Tensor, list[str]] = defaultdict(list)
    for name, place in module.state_dict(keep_vars=True).items():
        names[place].append(name)
    _check_names(names, tensors, where)
    copies = {place: [tensors[name] for name in aliases if name in tensors] for place, aliases in names.items()}
    for place, found in copies.items():
        _check_headers(place, found, where)
    if dtype is None:
        _check_types(module, copies, where)
    for place, (first, *others) in copies.items():
        for other in others:
            if not _equal(first, other):
                raise InputRefused(_unlike(first, other, where))
        filled = read_tensor(first).to(device, dtype if place.is_floating_point() else None)
        if isinstance(place, nn.Parameter):
            filled = nn.Parameter(filled, requires_grad=place.requires_grad)
        for name in names[place]:
            parent, _, leaf = name.rpartition(".")
            setattr(module.get_submodule(parent), leaf, filled)


def _check_names(names: Mapping[Tensor, Sequence[str]], tensors: Mapping[str, TensorRef], where: str) -> None:
    known = {name: place for place, aliases in names.items() for name in aliases}
    missing = [aliases[0] for aliases in names.values() if not any(name in tensors for name in aliases)]
    unexpected = sorted(tensors.keys() - known)
    if missing:
        wanted = _shown(known[missing[0]].shape)
        raise InputRefused(f"{where}: {missing[0]} is missing{_more(missing, wanted)}{_near(missing[0], unexpected)}")
    if unexpected:
        ref = tensors[unexpected[0]]
        more = _more(unexpected, _shown(ref.shape))
        raise InputRefused(f"{ref.where or where}: {ref.key} is no tensor of the model{more}{_near(ref.key, known)}")


def _check_headers(place: Tensor, copies: Sequence[TensorRef], where: str) -> None:
    for ref in copies:
        if ref.shape != tuple(place.shape):
            found, wanted = _shown(ref.shape), _shown(place.shape)
            raise InputRefused(f"{ref.where or where}: {ref.key} is {found}, but the config demands {wanted}")
        if ref.dtype.is_float != place.is_floating_point():
            wanted = "a floating-point number" if place.is_floating_point() else "none with a fraction"
            raise InputRefused(f"{ref.where or where}: {ref.key} is {ref.dtype}; it must be {wanted}")
        if ref.dtype != copies[0].dtype:
            raise InputRefused(_unlike(copies[0], ref, where))


def _check_types(module: nn.Module, copies: Mapping[Tensor, Sequence[TensorRef]], where: str) -> None:
    for part in filter(lambda each: isinstance(each, OF_ONE_TYPE), module.modules()):
        linear = [weight for each in part.modules() if isinstance(each, LINEAR) for weight in each.parameters()]
        first, *others = (copies[weight][0] for weight in linear)
        for ref in others:
            if ref.dtype != first.dtype:
                problem = f"{ref.key} is {ref.dtype} and {first.key} {first.dtype}, but one part computes in one type"
                raise InputRefused(f"{ref.where or where}: {problem}; dtype= makes them one")


def _shown(shape: Sequence[int]) -> str:
    return " x ".join(map(str, shape)) or "a scalar"


def _more(keys: Sequence[str], shape: str) -> str:
    """The shape of the first of some tensors, and how many others there are."""
    return f" ({shape}, and {len(keys) - 1} more)" if len(keys) > 1 else f" ({shape})"


def _near(key: str, others: Iterable[str]) -> str:
    near = get_close_matches(key, islice(others, SEARCHED), n=SHOWN)
    return f"; near it are {', '.join(near)}" if near else ""


def _unlike(first: TensorRef, other: TensorRef, where: str) -> str:
    return f"{other.where or where}: {other.key} differs from {first.key}, but the model has one tensor for both"


def _equal(left: TensorRef, right: TensorRef) -> bool:
    return all(bytes(a) == bytes(b) for _, a, b in side_by_side(left.source, right.source, left.nbytes))


def read_tensor(ref: TensorRef) -> Tensor:
    """A tensor with its own memory, filled in blocks."""
    tensor = torch.empty(ref.shape, dtype=getattr(torch, ref.dtype.name), device="cpu")
    memory = memory_of(tensor)
    for start, size in blocks(ref.nbytes, BLOCK):
        ref.source.read_into(start, [memory[start : start + size]])
    return tensor


def memory_of(tensor: Tensor) -> memoryview:
    """The bytes of a contiguous tensor on the CPU, not a copy."""
    flat = tensor.detach().reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat.data)


@dataclass(frozen=True, eq=False)
class InMemory:
    """The bytes of a contiguous tensor, wherever it lies; what lies on another device is copied when it is read."""

    tensor: Tensor

    def read_into(self, start: int, buffers: Sequence[memoryview]) -> None:
        size = self.tensor.element_size()
        for buffer in filter(len, buffers):
            first, last = start // size, -(-(start + len(buffer)) // size)
            part = memory_of(self.tensor.reshape(-1)[first:last].cpu())
            skipped = start - first * size
            buffer[:] = part[skipped : skipped + len(buffer)]
            start += len(buffer)


def refs(module: nn.Module) -> Iterator[TensorRef]:
    """The tensors of a module as a checkpoint has them, shared ones under each of their names."""
    for name, tensor in module.state_dict(keep_vars=True).items():
        yield ref_of(name, tensor)


def ref_of(key: str, tensor: Tensor) -> TensorRef:
    """A tensor as a checkpoint has it."""
    dtype = BY_NAME[str(tensor.dtype).removeprefix("torch.")]
    # Put in order here, or it would be for every block that is read.
    return TensorRef(key, dtype, tuple(tensor.shape), InMemory(tensor.detach().contiguous()))


def save(
    module: nn.Module,
    config: ModelConfig,
    out: Path,
    *,
    assets: Mapping[str, bytes] | None = None,
    container: Container = "mdl",
    overwrite: bool = False,
) -> dict[str, Any]:
    """Write a module as a CS checkpoint, and return its manifest: the folder appears whole or not at all.

    Raises OutputRefused, DiskError, InputRefused for an element type that the container cannot hold, and UsageError for
    another container.
    """
    if container not in CONTAINERS:
        raise UsageError(f"container is {excerpt(container)}, but a CS checkpoint is in {' or '.join(CONTAINERS)}")
    model, section = sections.write(config)
    options = api.Options(container=container)
    return api.write(out, model, section, list(refs(module)), assets=assets, options=options, overwrite=overwrite)
