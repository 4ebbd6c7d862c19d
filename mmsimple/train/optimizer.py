"""AdamW as CS computes it: what it is read from, what it does, and its state under the parameters' names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from typing import Any

import torch
from torch import Tensor, nn

from mmconvert.errors import InputRefused
from mmsimple.data.fields import SWITCH, Kind
from mmsimple.sections.supported import below, nearest, require, shown
from mmsimple.train.entries import (
    NOT_NEGATIVE,
    OFF,
    POSITIVE,
    is_integer,
    is_number,
    read_fields,
    read_name,
)

Group = dict[str, Any]

MOMENTS = ("exp_avg", "exp_avg_sq")
# Those of CS that are none of ours.
OTHERS = (
    *("ASGD", "Adadelta", "Adafactor", "Adagrad", "Adam", "Adamax", "Lamb", "Lion", "NAdam", "RAdam", "RMSprop"),
    *("Rprop", "SGD"),
)
BETAS = Kind(
    "two numbers, 0 or more and below 1",
    lambda value: isinstance(value, list) and len(value) == 2 and all(is_number(each) and each < 1 for each in value),
)
# torch counts them in float32.
STEP = Kind("a number of updates", lambda value: is_integer(value, 0) and value <= 2**24)
FIELDS = {"betas": BETAS, "eps": POSITIVE, "weight_decay": NOT_NEGATIVE, "correct_bias": SWITCH, "amsgrad": OFF}


@dataclass(frozen=True)
class AdamWConfig:
    """What `trainer.init.optimizer` says, with the defaults of CS."""

    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-6
    weight_decay: float = 0.0
    correct_bias: bool = True


DEFAULTS = {**vars(AdamWConfig()), "betas": list(AdamWConfig.betas), "amsgrad": False}


def read_optimizer(section: Any, where: str, path: str) -> AdamWConfig:
    """The optimizer that `trainer.init.optimizer`, at a path of the file `where`, describes: `{AdamW: {...}}`.

    Raises InputRefused, naming file and path, for an optimizer or field that does not exist, with the nearest that
    does; for optimizers that CS has and mmsimple does not; for values that make no sense; and for a learning rate.
    """
    _, fields, at = read_name(section, "optimizer", ("AdamW",), ("AdamW", *OTHERS), where, path)
    for name in ("learning_rate", "lr"):
        require(name not in fields, where, f"{below(at, name)}: trainer.init.schedulers says the learning rate")
    full = read_fields(fields, FIELDS, DEFAULTS, where, at)
    beta1, beta2 = map(float, full["betas"])
    return AdamWConfig((beta1, beta2), float(full["eps"]), float(full["weight_decay"]), full["correct_bias"])


class AdamW(torch.optim.AdamW):
    """torch's AdamW, but with eps outside of the bias correction, which may be left out.

    With m and v the moments after t updates, u = m / (sqrt(v) + eps) * sqrt(1 - b2^t) / (1 - b1^t), or without
    `correct_bias` u = m / (sqrt(v) + eps); then p -= lr * (u + weight_decay * p).

    Groups are as torch has them, each with the `names` of its parameters. Their `lr` is 0 until somebody sets it. All
    parameters of a group have the same t, its `step`, even one that has no gradient in some update, which leaves it
    and its moments as they are. Parameters must be on their device already.
    """

    def __init__(self, groups: Iterable[Group], config: AdamWConfig, *, fused: bool = False) -> None:
        settings: dict[str, Any] = {
            "betas": config.betas,
            "eps": config.eps,
            "weight_decay": config.weight_decay,
            "foreach": not fused,
            "fused": fused,
        }
        super().__init__(groups, lr=0.0, **settings)
        # With fused kernels a gradient scaler would leave it to them to skip an update, which the count would not see.
        self._step_supports_amp_scaling = False
        for group in self.param_groups:
            group.update(correct_bias=config.correct_bias, step=0)
            for parameter in group["params"]:
                # torch reads the count of a fused update on the device, and of any other on the CPU.
                device = parameter.device if fused else "cpu"
                moments = {moment: torch.zeros_like(parameter) for moment in MOMENTS}
                self.state[parameter] = {"step": torch.zeros((), dtype=torch.float32, device=device), **moments}

    def step(self, closure: Any = None) -> Any:
        """One update with the gradients that there are. Groups afterwards say what they said before."""
        nominal = self.param_groups
        self.param_groups = [_for_torch(group) for group in nominal]
        try:
            loss = super().step(closure)
        finally:
            self.param_groups = nominal
        for group in nominal:
            group["step"] += 1
            for parameter in group["params"]:
                if parameter.grad is None:
                    self.state[parameter]["step"] += 1
        return loss


def _for_torch(group: Group) -> Group:
    """The group with numbers that let torch's rule come out as that of CS in this update.

    torch computes p -= lr * (m / (1 - b1^t) / (sqrt(v) / sqrt(1 - b2^t) + eps) + weight_decay * p): its eps is added
    after the correction, and its correction cannot be left out.
    """
    beta1, beta2 = group["betas"]
    t = group["step"] + 1
    first, second = 1 - beta1**t, sqrt(1 - beta2**t)
    changed = {**group, "eps": group["eps"] / second}
    if not group["correct_bias"]:
        changed["lr"] = group["lr"] * first / second
        changed["weight_decay"] = group["weight_decay"] * second / first
    return changed


def build_optimizer(model: nn.Module, config: AdamWConfig, *, fused: bool = True) -> AdamW:
    """AdamW of the parameters that train: a group of those that decay, and one of biases and norm weights.

    Embeddings decay as matrices do, those of positions and of the class token too, although the latter is a vector.
    Groups are in the order of the model; a shared parameter comes once, under its first name. Kernels are fused,
    which takes about half the time, unless `fused` says otherwise.
    """
    trained = [(name, parameter) for name, parameter in model.named_parameters() if parameter.requires_grad]
    groups: list[Group] = []
    for decays, weight_decay in ((True, config.weight_decay), (False, 0.0)):
        members = [(name, parameter) for name, parameter in trained if _decays(name, parameter) == decays]
        groups.append({**_holding(members), "weight_decay": weight_decay})
    return AdamW(groups, config, fused=fused)


def _decays(name: str, parameter: Tensor) -> bool:
    return parameter.dim() > 1 or name.endswith("cls_embedding")


def optimizer_state(optimizer: AdamW) -> dict[str, Any]:
    """The state as the trainer of CS saves it, under the parameters' names in the model.

    Tensors are the optimizer's own, not copies. There are no learning rates: they follow from the number of updates.
    """
    settings = ("eps", "weight_decay", "correct_bias")
    return {
        "state": {
            name: {**{moment: optimizer.state[parameter][moment] for moment in MOMENTS}, "step": group["step"]}
            for group in optimizer.param_groups
            for name, parameter in _members(group)
        },
        "param_groups": [
            {"params": list(group["names"]), "betas": list(group["betas"]), **{each: group[each] for each in settings}}
            for group in optimizer.param_groups
        ],
    }


def load_optimizer_state(
    optimizer: AdamW, state: Mapping[str, Any], where: str = "optimizer", *, strict: bool = True
) -> tuple[str, ...]:
    """Set moments and counts to what `optimizer_state` gave; the groups and their settings stay the optimizer's own.

    Raises InputRefused, beginning with `where` and before anything is set, for parameters that are missing, that do not
    train or whose shapes differ. If not `strict`, such are passed over, and the result says which, in a line each; what
    is not loaded keeps its own count, in a group of its own.
    """
    saved = state.get("state")
    if not isinstance(saved, Mapping):
        raise InputRefused(f"{where}: state is {shown(saved)}: it must hold what is kept of each parameter")
    own = {name: optimizer.state[each] for group in optimizer.param_groups for name, each in _members(group)}
    problems = dict(_problems(own, saved))
    if strict and problems:
        first, more = list(problems.values())[:3], len(problems) - 3
        raise InputRefused(f"{where}: {'; '.join([*first, f'and {more} more'] if more > 0 else first)}")
    counts: dict[str, int] = {}
    for name in own.keys() - problems.keys():
        counts[name] = saved[name]["step"]
        own[name]["step"].fill_(counts[name])
        for moment in MOMENTS:
            own[name][moment].copy_(saved[name][moment])
    optimizer.param_groups = [part for group in optimizer.param_groups for part in _by_count(group, counts)]
    return tuple(problems.values())


def _members(group: Group) -> Iterator[tuple[str, Tensor]]:
    return zip(group["names"], group["params"], strict=True)


def _holding(members: Sequence[tuple[str, Tensor]]) -> Group:
    return {"names": [name for name, _ in members], "params": [parameter for _, parameter in members]}


def _problems(own: Mapping[str, Mapping[str, Tensor]], saved: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """The names of parameters whose state cannot be loaded, each with the reason."""
    for name, state in own.items():
        problem = _misfit(state, saved[name]) if name in saved else " is missing"
        if problem is not None:
            yield name, f"{name}{problem}"
    for name in saved:
        if name not in own:
            yield name, f"{shown(name)}: no such parameter trains{nearest(name, own)}"


def _misfit(own: Mapping[str, Tensor], saved: Any) -> str | None:
    if not isinstance(saved, Mapping):
        return f" is {shown(saved)}: it must hold {', '.join(MOMENTS)} and step"
    for moment in MOMENTS:
        given = saved.get(moment)
        if not isinstance(given, Tensor):
            return f".{moment} is missing"
        if given.shape != own[moment].shape:
            return f".{moment} is {list(given.shape)}: the parameter is {list(own[moment].shape)}"
        if torch.promote_types(given.dtype, own[moment].dtype) != own[moment].dtype:
            return f".{moment} is {given.dtype}: the parameter is {own[moment].dtype}, which does not hold all of that"
    step = saved.get("step")
    return None if STEP.holds(step) else f".step is {shown(step)}: it must be {STEP.words}"


def _by_count(group: Group, counts: Mapping[str, int]) -> Iterator[Group]:
    """The group taken apart into such whose parameters have one count each; most often that is itself."""
    steps = {name: counts.get(name, group["step"]) for name in group["names"]}
    for step in dict.fromkeys(steps.values()) or [group["step"]]:
        members = [(name, parameter) for name, parameter in _members(group) if steps[name] == step]
        yield {**group, **_holding(members), "step": step}
