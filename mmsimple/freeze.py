"""What trains and what stays as it is: patterns of parameter names, as `freeze` in a Cerebras config has them.

Of what is frozen autograd records nothing by itself, where no gradient has to pass through: an encoder in front of
everything else runs as under `no_grad`, while a decoder hands the projector's gradients on, and keeps what that takes.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING

from torch import nn

from mmconvert.errors import UsageError
from mmconvert.excerpt import excerpt
from mmsimple.patterns import compiled

if TYPE_CHECKING:
    from mmsimple.model import MultimodalModel

ENCODERS = "image_model.image_model_list"
PROJECTOR = "image_model.projection"
DECODER = "text_model"


@dataclass(frozen=True)
class Part:
    """A part of a model by its name, and how many of its parameters there are and how many train."""

    name: str
    parameters: int
    trained: int


@dataclass(frozen=True)
class Freezing:
    """What trains and what is frozen, part by part; a parameter with two names counts once."""

    parts: tuple[Part, ...]

    @property
    def parameters(self) -> int:
        return sum(part.parameters for part in self.parts)

    @property
    def trained(self) -> int:
        return sum(part.trained for part in self.parts)

    def __str__(self) -> str:
        parts = _joined(self.parts)
        training = ", ".join(map(_told, (part for part in parts if part.trained)))
        frozen = ", ".join(part.name for part in parts if not part.trained)
        counts = f"training {shortened(self.trained)} of {shortened(self.parameters)} parameters: {training}"
        return f"{counts}; frozen: {frozen}" if frozen else counts


def freeze(model: MultimodalModel, patterns: Sequence[str], where: str = "freeze") -> Freezing:
    """Let the parameters train that no pattern is found in, and no others; frozen parts go to eval mode for good.

    A pattern is searched for in each of a parameter's names, which begin with `image_model.` or `text_model.`. Raises,
    beginning with `where`, InputRefused for a pattern that is no regular expression or may run away, and UsageError for
    one that matches nothing and where nothing would be left to train.
    """
    names = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    searches = [compiled(pattern, where) for pattern in patterns]
    for search in searches:
        if not any(map(search.search, names)):
            starts = ", ".join(dict.fromkeys(map(_beginning, names)))
            pattern = excerpt(search.pattern)
            raise UsageError(f"{where}: '{pattern}' matches no parameter; parameters begin with {starts}")
    frozen = {
        parameter
        for name, parameter in model.named_parameters(remove_duplicate=False)
        if any(search.search(name) for search in searches)
    }
    parameters = list(model.parameters())
    if len(frozen) == len(parameters):
        raise UsageError(
            f"{where}: {excerpt(', '.join(patterns))} leave nothing to train; ^image_model matches the projector "
            f"{PROJECTOR} too, ^{ENCODERS} the encoders alone"
        )
    for parameter in parameters:
        parameter.requires_grad_(parameter not in frozen)
    model.train(model.training)
    return summarised(model)


def summarised(model: nn.Module) -> Freezing:
    """What of a model trains as it is now; one that is not multimodal is a single part."""
    parts = [_part(name, module) for name, module in _parts(model)]
    return Freezing(tuple(part for part in parts if part.parameters))


def rest(module: nn.Module) -> None:
    """Put everything into eval mode that has parameters and trains none of them, with all that it holds.

    What has no parameters, such as dropout, goes with the module that holds it.
    """
    parameters = list(module.parameters())
    if parameters and not any(parameter.requires_grad for parameter in parameters):
        module.eval()
        return
    for child in module.children():
        rest(child)


def shortened(count: int) -> str:
    """A number of parameters in three digits: "303 M", "7.06 B"."""
    for unit, size in (("B", 10**9), ("M", 10**6), ("k", 10**3)):
        # Rounded to three digits, 999.6 would be 1000.
        if count >= 0.9995 * size:
            value = count / size
            decimals = 2 if value < 9.995 else 1 if value < 99.95 else 0
            return f"{value:.{decimals}f} {unit}"
    return str(count)


def _beginning(name: str) -> str:
    """The part that a parameter belongs to, all encoders being one."""
    return next((part for part in (ENCODERS, PROJECTOR, DECODER) if name.startswith(f"{part}.")), name)


def _parts(model: nn.Module) -> Iterator[tuple[str, nn.Module]]:
    names = dict(model.named_modules())
    if ENCODERS not in names:
        yield "model", model
        return
    for number, image_model in names[ENCODERS].named_children():
        for place, module in image_model.named_children():
            yield f"{ENCODERS}.{number}.{place}", module
    yield PROJECTOR, names[PROJECTOR]
    yield DECODER, names[DECODER]


def _part(name: str, module: nn.Module) -> Part:
    parameters = list(module.parameters())
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    return Part(name, sum(each.numel() for each in parameters), sum(each.numel() for each in trained))


def _joined(parts: Sequence[Part]) -> list[Part]:
    """Encoders and their own projections as one part, where all of them train or none does."""
    joined: list[Part] = []
    for beginning, group in groupby(parts, lambda part: _beginning(f"{part.name}.")):
        members = list(group)
        parameters, trained = sum(each.parameters for each in members), sum(each.trained for each in members)
        is_one = beginning == ENCODERS and trained in (0, parameters)
        joined += [Part(ENCODERS, parameters, trained)] if is_one else members
    return joined


def _told(part: Part) -> str:
    """A part that trains, with how much of it where that is not all."""
    if part.trained == part.parameters:
        return part.name
    return f"{part.name} ({shortened(part.trained)} of {shortened(part.parameters)})"
