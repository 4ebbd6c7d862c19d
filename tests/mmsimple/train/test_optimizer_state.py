"""The optimizer's state under the names of parameters: what is kept, what continues, and what is refused."""

from __future__ import annotations

from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
from torch import nn

from mmconvert.errors import InputRefused
from mmsimple.freeze import freeze
from mmsimple.model import MultimodalModel
from mmsimple.train.optimizer import AdamW, AdamWConfig, build_optimizer, load_optimizer_state, optimizer_state
from tests.mmsimple.small import MULTIMODAL, apart, drawn, random
from tests.mmsimple.train.updates import CONFIG, PROJECTOR, Two, rate, trained, update, weights


def large(seed: int = 0, patterns: tuple[str, ...] = PROJECTOR) -> MultimodalModel:
    model = drawn(MultimodalModel(MULTIMODAL), seed)
    freeze(model, patterns)
    return model


def go_on(model: nn.Module, optimizer: AdamW, count: int, start: int) -> None:
    """Updates in which some parameters have no gradient now and then."""
    for number in range(start, start + count):
        given = {
            name: random(*parameter.shape, seed=1000 * number + place)
            for place, (name, parameter) in enumerate(model.named_parameters())
            if parameter.requires_grad and (number + place) % 3
        }
        update(model, optimizer, number, given)


@pytest.mark.parametrize("fused", [False, True])
def test_the_state_under_names_continues_bitwise_the_same(fused: bool) -> None:
    model = large(patterns=())
    optimizer = build_optimizer(model, CONFIG, fused=fused)
    go_on(model, optimizer, 4, start=1)
    saved = deepcopy(optimizer_state(optimizer))
    other = deepcopy(model)
    resumed = build_optimizer(other, CONFIG, fused=fused)
    assert load_optimizer_state(resumed, saved) == ()
    go_on(model, optimizer, 4, start=5)
    go_on(other, resumed, 4, start=5)
    assert all(torch.equal(each, weights(other)[name]) for name, each in weights(model).items())
    first, second = optimizer_state(optimizer), optimizer_state(resumed)
    assert first["param_groups"] == second["param_groups"]
    for name, entry in first["state"].items():
        assert entry["step"] == second["state"][name]["step"] == 8
        assert torch.equal(entry["exp_avg"], second["state"][name]["exp_avg"])
        assert torch.equal(entry["exp_avg_sq"], second["state"][name]["exp_avg_sq"])


def test_the_state_has_the_form_of_the_cs_trainer() -> None:
    optimizer = trained(Two(), CONFIG)
    state = optimizer_state(optimizer)
    assert list(state) == ["state", "param_groups"]
    assert list(state["state"]) == ["weight", "bias"]
    assert list(state["state"]["weight"]) == ["exp_avg", "exp_avg_sq", "step"]
    assert type(state["state"]["weight"]["step"]) is int
    common = {"betas": [0.8, 0.95], "eps": 0.1, "correct_bias": True}
    assert state["param_groups"] == [
        {"params": ["weight"], "weight_decay": 0.3, **common},
        {"params": ["bias"], "weight_decay": 0.0, **common},
    ]


def test_the_state_before_the_first_update_is_zeros_and_loads() -> None:
    state = optimizer_state(build_optimizer(Two(), CONFIG))
    assert state["state"]["weight"]["step"] == 0
    assert not state["state"]["weight"]["exp_avg"].any()
    assert load_optimizer_state(build_optimizer(Two(), CONFIG), state) == ()


def test_settings_are_not_loaded() -> None:
    resumed = build_optimizer(Two(), AdamWConfig(weight_decay=0.01))
    load_optimizer_state(resumed, optimizer_state(trained(Two(), CONFIG)))
    assert [group["weight_decay"] for group in resumed.param_groups] == [0.01, 0.0]
    assert resumed.param_groups[0]["eps"] == 1e-6


def spoilt(**changes: Any) -> dict[str, Any]:
    """A good state but for these changes of the weight's."""
    state = optimizer_state(trained(Two(), CONFIG))
    state["state"]["weight"].update(changes)
    return state


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"exp_avg": torch.zeros(4, 5)}, "weight.exp_avg is [4, 5]: the parameter is [5, 4]"),
        ({"exp_avg_sq": None}, "weight.exp_avg_sq is missing"),
        (
            {"exp_avg": torch.zeros(5, 4, dtype=torch.float64)},
            "weight.exp_avg is torch.float64: the parameter is torch.float32, which does not hold all of that",
        ),
        ({"step": 2.5}, "weight.step is 2.5: it must be a number of updates"),
        ({"step": -1}, "weight.step is -1: it must be a number of updates"),
        ({"step": 10**9}, "weight.step is 1000000000: it must be a number of updates"),
        ({"step": None}, "weight.step is null: it must be a number of updates"),
    ],
)
def test_a_state_that_does_not_fit_is_refused_before_anything_is_set(changes: dict[str, Any], message: str) -> None:
    optimizer = build_optimizer(Two(), CONFIG)
    with pytest.raises(InputRefused) as refused:
        load_optimizer_state(optimizer, spoilt(**changes), "checkpoint_9.mdl: optimizer")
    assert str(refused.value) == f"checkpoint_9.mdl: optimizer: {message}"
    assert optimizer_state(optimizer)["state"]["bias"]["step"] == 0
    assert not optimizer_state(optimizer)["state"]["bias"]["exp_avg"].any()


def test_missing_and_unexpected_parameters_are_named() -> None:
    state = optimizer_state(trained(Two(), CONFIG))
    state["state"]["weights"] = state["state"].pop("weight")
    optimizer = build_optimizer(Two(), CONFIG)
    missing, unexpected = "weight is missing", "weights: no such parameter trains; did you mean weight?"
    with pytest.raises(InputRefused) as refused:
        load_optimizer_state(optimizer, state)
    assert str(refused.value) == f"optimizer: {missing}; {unexpected}"
    assert load_optimizer_state(optimizer, state, strict=False) == (missing, unexpected)


def test_of_many_problems_three_are_told() -> None:
    with pytest.raises(InputRefused) as refused:
        load_optimizer_state(build_optimizer(large(), CONFIG), {"state": {}})
    message = str(refused.value)
    assert message.count(" is missing") == 3
    assert message.endswith("; and 1 more")


@pytest.mark.parametrize("state", [{}, {"state": None}, {"state": [1]}])
def test_what_is_no_state_is_refused(state: Any) -> None:
    with pytest.raises(InputRefused, match=r"optimizer: state is .*: it must hold what is kept of each parameter"):
        load_optimizer_state(build_optimizer(Two(), CONFIG), state)
    with pytest.raises(InputRefused, match="weight is 5: it must hold exp_avg, exp_avg_sq and step"):
        load_optimizer_state(build_optimizer(Two(), CONFIG), {"state": {"weight": 5}})


def test_what_trains_anew_has_a_count_of_its_own() -> None:
    old = large()
    optimizer = build_optimizer(old, CONFIG)
    go_on(old, optimizer, 3, start=1)
    saved = deepcopy(optimizer_state(optimizer))
    model = large(patterns=PROJECTOR[:1])
    more = build_optimizer(model, CONFIG)
    passed_over = load_optimizer_state(more, saved, strict=False)
    assert len(passed_over) == len([name for name, _ in model.text_model.named_parameters()])
    assert sorted((group["weight_decay"], group["step"]) for group in more.param_groups) == [
        (0.0, 0),
        (0.0, 3),
        (0.3, 0),
        (0.3, 3),
    ]
    # A first update, in which m / (1 - b1) and v / (1 - b2) are the gradient and its square.
    start = weights(deepcopy(model))["text_model.lm_head.weight"]
    gradient = random(*start.shape)
    update(model, more, 1, {"text_model.lm_head.weight": gradient})
    u = gradient / (gradient.abs() + CONFIG.eps / sqrt(1 - CONFIG.betas[1]))
    expected = start - rate(1) * (u + CONFIG.weight_decay * start)
    assert apart(weights(model)["text_model.lm_head.weight"], expected) < 1e-6
    again = build_optimizer(large(patterns=PROJECTOR[:1]), CONFIG)
    load_optimizer_state(again, optimizer_state(more))
    assert {name: each["step"] for name, each in optimizer_state(again)["state"].items()} == {
        name: each["step"] for name, each in optimizer_state(more)["state"].items()
    }
