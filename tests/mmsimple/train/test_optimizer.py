"""AdamW: CS's rule against plain loops, what trains and what decays, and sections that are refused."""

from __future__ import annotations

from copy import deepcopy
from math import sqrt
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmconvert.errors import InputRefused
from mmsimple.freeze import freeze
from mmsimple.model import MultimodalModel
from mmsimple.train.optimizer import AdamWConfig, build_optimizer, load_optimizer_state, optimizer_state, read_optimizer
from tests.mmsimple.small import MULTIMODAL, apart, random
from tests.mmsimple.train.updates import CONFIG, PROJECTOR, UPDATES, Two, gradients, rate, trained, update, weights


def by_the_rule(start: Tensor, gradients: list[Tensor], config: AdamWConfig, weight_decay: float) -> Tensor:
    """The plain loop, in float64."""
    p, m, v = start.double(), torch.zeros_like(start).double(), torch.zeros_like(start).double()
    b1, b2 = config.betas
    for t, gradient in enumerate(gradients, start=1):
        g = gradient.double()
        m = b1 * m + (1 - b1) * g
        v = b2 * v + (1 - b2) * g * g
        u = m / (v.sqrt() + config.eps)
        if config.correct_bias:
            u = u * sqrt(1 - b2**t) / (1 - b1**t)
        p = p - rate(t - 1) * (u + weight_decay * p)
    return p


@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("correct_bias", [False, True])
@pytest.mark.parametrize("eps", [1e-8, 0.1])
def test_updates_follow_the_rule(fused: bool, correct_bias: bool, eps: float) -> None:
    config = AdamWConfig((0.8, 0.95), eps, 0.3, correct_bias)
    start, model = Two(), Two().double()
    trained(model, config, fused=fused)
    each = list(gradients())
    weight = by_the_rule(start.weight.detach(), [g["weight"] for g in each], config, 0.3)
    bias = by_the_rule(start.bias.detach(), [g["bias"] for g in each], config, 0.0)
    torch.testing.assert_close(model.weight.detach(), weight, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(model.bias.detach(), bias, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("fused", [False, True])
def test_float32_is_as_near_as_its_precision(fused: bool) -> None:
    model = Two()
    trained(model, CONFIG, fused=fused)
    expected = by_the_rule(Two().weight.detach(), [each["weight"] for each in gradients()], CONFIG, 0.3)
    assert apart(model.weight.detach(), expected) < 1e-6


def test_torchs_own_rule_is_another() -> None:
    ours, theirs = Two(), Two()
    trained(ours, CONFIG)
    optimizer = torch.optim.AdamW([theirs.weight], betas=CONFIG.betas, eps=CONFIG.eps, weight_decay=0.3)
    for number, given in enumerate(gradients()):
        theirs.weight.grad = given["weight"]
        optimizer.param_groups[0]["lr"] = rate(number)
        optimizer.step()
    assert apart(ours.weight.detach(), theirs.weight.detach()) > 1e-2


def test_the_first_update_by_hand() -> None:
    model = Two()
    with torch.no_grad():
        model.weight.fill_(2.0)
    optimizer = build_optimizer(model, AdamWConfig((0.9, 0.99), 0.5, 0.25))
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    model.weight.grad = torch.full((5, 4), 10.0)
    optimizer.step()
    # m = 1, v = 1: u = 1 / (1 + 0.5) * 0.1 / 0.1 = 2/3, and 2 - 0.1 * (2/3 + 0.25 * 2).
    assert model.weight.detach().flatten().tolist() == pytest.approx([2 - 0.1 * (2 / 3 + 0.5)] * 20)


def test_groups_say_the_nominal_values_after_an_update() -> None:
    for correct_bias in (False, True):
        model = Two()
        optimizer = trained(model, AdamWConfig(CONFIG.betas, CONFIG.eps, CONFIG.weight_decay, correct_bias))
        for group, weight_decay in zip(optimizer.state_dict()["param_groups"], (0.3, 0.0), strict=True):
            assert group["lr"] == rate(UPDATES - 1)
            assert (group["eps"], group["betas"], group["weight_decay"]) == (0.1, (0.8, 0.95), weight_decay)
            assert (group["correct_bias"], group["step"]) == (correct_bias, UPDATES)


def test_groups_say_the_nominal_values_after_an_update_that_failed() -> None:
    model = Two()
    optimizer = build_optimizer(model, CONFIG)

    def fail() -> None:
        raise RuntimeError("no memory")

    with pytest.raises(RuntimeError, match="no memory"):
        optimizer.step(fail)
    assert [group["eps"] for group in optimizer.param_groups] == [0.1, 0.1]
    assert [group["step"] for group in optimizer.param_groups] == [0, 0]


def test_nothing_changes_before_a_rate_is_set() -> None:
    model = Two()
    optimizer = build_optimizer(model, CONFIG)
    model.weight.grad = torch.ones(5, 4)
    optimizer.step()
    assert torch.equal(model.weight, Two().weight)


def test_torchs_state_dict_continues_bitwise_the_same() -> None:
    model = Two()
    optimizer = trained(model, CONFIG)
    other = deepcopy(model)
    resumed = build_optimizer(other, AdamWConfig())
    resumed.load_state_dict(deepcopy(optimizer.state_dict()))
    for number, given in enumerate(gradients(5, start=UPDATES), start=UPDATES):
        update(model, optimizer, number, given)
        update(other, resumed, number, given)
    assert torch.equal(model.weight, other.weight)
    assert [group["step"] for group in resumed.param_groups] == [UPDATES + 5] * 2


def test_a_parameter_without_gradient_stays_and_its_updates_count() -> None:
    model = Two()
    optimizer = build_optimizer(model, CONFIG)
    one, two, three = gradients(3)
    update(model, optimizer, 1, one)
    before = weights(deepcopy(model)), deepcopy(optimizer_state(optimizer)["state"]["weight"])
    update(model, optimizer, 1, {"bias": two["bias"]})
    assert torch.equal(model.weight, before[0]["weight"])
    assert not torch.equal(model.bias, before[0]["bias"])
    state = optimizer_state(optimizer)["state"]["weight"]
    assert torch.equal(state["exp_avg"], before[1]["exp_avg"])
    assert torch.equal(state["exp_avg_sq"], before[1]["exp_avg_sq"])
    assert state["step"] == 2
    # The third update: two gradients are in the moments, and the correction is that of t = 3.
    update(model, optimizer, 1, three)
    b1, b2 = CONFIG.betas
    m = b1 * (1 - b1) * one["weight"] + (1 - b1) * three["weight"]
    v = b2 * (1 - b2) * one["weight"] ** 2 + (1 - b2) * three["weight"] ** 2
    u = m / (v.sqrt() + CONFIG.eps) * sqrt(1 - b2**3) / (1 - b1**3)
    start = before[0]["weight"]
    assert apart(model.weight.detach(), start - rate(1) * (u + CONFIG.weight_decay * start)) < 1e-6


@pytest.mark.parametrize("fused", [False, True])
def test_an_update_that_overflowed_does_not_count(fused: bool) -> None:
    model = Two()
    optimizer = build_optimizer(model, CONFIG, fused=fused)
    scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
    for number, factor in enumerate((1.0, float("inf"), 1.0), start=1):
        optimizer.zero_grad()
        loss = (model.weight.sum() + model.bias.sum()) * factor
        torch.autograd.backward(scaler.scale(loss))
        scaler.unscale_(optimizer)
        for group in optimizer.param_groups:
            group["lr"] = rate(number)
        scaler.step(optimizer)
        scaler.update()
    assert [group["step"] for group in optimizer.param_groups] == [2, 2]
    assert all(int(optimizer.state[each]["step"]) == 2 for each in model.parameters())
    assert model.weight.isfinite().all()


def test_biases_and_norms_do_not_decay_and_embeddings_do() -> None:
    model = MultimodalModel(MULTIMODAL)
    decaying, others = build_optimizer(model, CONFIG).param_groups
    assert (decaying["weight_decay"], others["weight_decay"]) == (0.3, 0.0)
    names = [name for name, _ in model.named_parameters()]
    for group in (decaying, others):
        assert group["names"] == [name for name in names if name in group["names"]]
        parameters = dict(model.named_parameters())
        assert all(parameters[n] is p for n, p in zip(group["names"], group["params"], strict=True))
    assert sorted([*decaying["names"], *others["names"]]) == sorted(names)
    for name in names:
        is_one = name.endswith((".bias", "_ln.weight")) or "norm" in name
        assert (name in others["names"]) == is_one, name
    vision = "image_model.image_model_list.0.0.embedding_layer"
    assert {f"{vision}.cls_embedding", f"{vision}.position_embeddings.weight"} <= set(decaying["names"])


def test_a_shared_parameter_comes_once() -> None:
    model = MultimodalModel(MULTIMODAL)
    names = [name for group in build_optimizer(model, CONFIG).param_groups for name in group["names"]]
    assert "text_model.transformer_decoder.norm.weight" in names
    assert "text_model.ln_f.weight" not in names


def test_what_is_frozen_is_not_there() -> None:
    model = MultimodalModel(MULTIMODAL)
    freeze(model, PROJECTOR)
    decaying, others = build_optimizer(model, CONFIG).param_groups
    layers = [f"image_model.projection.ffn.{number}.linear_layer" for number in range(2)]
    assert decaying["names"] == [f"{layer}.weight" for layer in layers]
    assert others["names"] == [f"{layer}.bias" for layer in layers]


def test_a_group_may_be_empty() -> None:
    model = nn.Linear(3, 2, bias=False)
    optimizer = build_optimizer(model, CONFIG)
    update(model, optimizer, 1, {"weight": random(2, 3)})
    load_optimizer_state(optimizer, optimizer_state(optimizer))
    assert [(group["names"], group["step"]) for group in optimizer.param_groups] == [(["weight"], 1), ([], 1)]


def read(section: Any) -> AdamWConfig:
    return read_optimizer(section, "params.yaml", "trainer.init.optimizer")


def test_the_defaults_are_those_of_cs() -> None:
    assert read({"AdamW": None}) == read({"AdamW": {}}) == AdamWConfig((0.9, 0.999), 1e-6, 0.0, True)


def test_a_section_is_read() -> None:
    fields = {"betas": [0, 0.95], "eps": 1, "weight_decay": 1, "correct_bias": False, "amsgrad": False}
    config = read({"AdamW": fields})
    assert config == AdamWConfig((0.0, 0.95), 1.0, 1.0, False)
    assert [type(each) for each in (*config.betas, config.eps, config.weight_decay)] == [float] * 4


@pytest.mark.parametrize(
    ("section", "message"),
    [
        (None, " is null: it must be the name of one optimizer, with its fields below it"),
        ("AdamW", " is AdamW: it must be the name of one optimizer, with its fields below it"),
        ({"AdamW": {}, "SGD": {}}, " has 2 names: it must be the name of one optimizer, with its fields below it"),
        ({"SGD": {"lr": 1}}, ".SGD: mmsimple computes AdamW only"),
        ({"Lino": {}}, ".Lino: no such optimizer; did you mean Lion?"),
        ({"Adam": {}}, ".Adam: mmsimple computes AdamW only"),
        ({"adamw": {}}, ".adamw: no such optimizer; did you mean AdamW?"),
        ({"AdamW": 0.1}, ".AdamW is 0.1: it must be a mapping"),
        ({"AdamW": {"learning_rate": 1}}, ".AdamW.learning_rate: trainer.init.schedulers says the learning rate"),
        ({"AdamW": {"lr": 1}}, ".AdamW.lr: trainer.init.schedulers says the learning rate"),
        ({"AdamW": {"beta": 1}}, ".AdamW.beta: no such field; did you mean betas?"),
        ({"AdamW": {"amsgrad": True}}, ".AdamW.amsgrad is true: it must be false, all that mmsimple computes"),
        ({"AdamW": {"betas": 0.9}}, ".AdamW.betas is 0.9: it must be two numbers, 0 or more and below 1"),
        ({"AdamW": {"betas": [0.9]}}, ".AdamW.betas is [0.9]: it must be two numbers, 0 or more and below 1"),
        ({"AdamW": {"betas": [0.9, 1]}}, ".AdamW.betas is [0.9, 1]: it must be two numbers, 0 or more and below 1"),
        ({"AdamW": {"eps": 0}}, ".AdamW.eps is 0: it must be a number above 0"),
        ({"AdamW": {"eps": "small"}}, ".AdamW.eps is small: it must be a number above 0"),
        ({"AdamW": {"weight_decay": -0.1}}, ".AdamW.weight_decay is -0.1: it must be a number, 0 or more"),
        ({"AdamW": {"weight_decay": True}}, ".AdamW.weight_decay is true: it must be a number, 0 or more"),
        ({"AdamW": {"correct_bias": 1}}, ".AdamW.correct_bias is 1: it must be true or false"),
    ],
)
def test_what_makes_no_sense_is_refused(section: Any, message: str) -> None:
    with pytest.raises(InputRefused) as refused:
        read(section)
    assert str(refused.value) == f"params.yaml: trainer.init.optimizer{message}"
