"""Norms over all parameters, and clipping by norm and by value."""

from __future__ import annotations

from copy import deepcopy

import pytest
import torch
from torch import Tensor, nn

from mmsimple.train.norms import clip, gradient_norm, parameter_norm
from tests.mmsimple.small import random


def parameters(*gradients: Tensor | None) -> list[nn.Parameter]:
    """Parameters of ones, in the types of their gradients."""
    made = []
    for gradient in gradients:
        like = torch.zeros(3) if gradient is None else gradient
        made.append(nn.Parameter(torch.ones_like(like)))
        made[-1].grad = None if gradient is None else gradient.clone()
    return made


def gradients(made: list[nn.Parameter]) -> list[Tensor]:
    return [each.grad for each in made if each.grad is not None]


def test_the_norm_is_of_all_gradients_together() -> None:
    made = parameters(torch.tensor([1.0, 2.0]), None, torch.tensor([[2.0], [4.0]]))
    assert gradient_norm(made).item() == 5.0


def test_the_norm_of_parameters_counts_those_that_do_not_train() -> None:
    made = parameters(torch.zeros(7, dtype=torch.bfloat16), torch.zeros(2, 4), None)
    made[1].requires_grad_(False)
    norm = parameter_norm(iter(made))
    assert norm.item() == pytest.approx(18**0.5)
    assert not norm.requires_grad


def test_without_gradients_the_norm_is_0_and_nothing_happens() -> None:
    made = parameters(None, None)
    assert gradient_norm(made).item() == 0
    assert clip(made, max_norm=1.0, max_value=1.0).item() == 0
    assert gradients(made) == []


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_summed_in_float32(dtype: torch.dtype) -> None:
    halves = [random(1000, seed=seed).to(dtype) for seed in range(3)]
    made = parameters(*halves, random(50))
    exact = torch.cat([*halves, random(50)]).double().norm().item()
    assert gradient_norm(made).dtype == torch.float32
    assert gradient_norm(made).item() == pytest.approx(exact, rel=1e-6)


def test_the_norm_of_float16_does_not_overflow() -> None:
    assert gradient_norm(parameters(torch.full((100,), 6e4, dtype=torch.float16))).item() == pytest.approx(
        6e5, rel=1e-3
    )


def test_clipping_by_norm_is_that_of_torch_and_gives_the_norm_before() -> None:
    made = parameters(random(40), None, random(5, 6, seed=1))
    theirs = deepcopy(made)
    for ours, other in zip(made, theirs, strict=True):
        other.grad = None if ours.grad is None else ours.grad.clone()
    expected = torch.nn.utils.clip_grad_norm_(theirs, 2.0)
    norm = clip(iter(made), max_norm=2.0)
    assert torch.equal(norm, expected)
    assert norm > 2
    assert all(torch.equal(a, b) for a, b in zip(gradients(made), gradients(theirs), strict=True))
    assert gradient_norm(made).item() == pytest.approx(2.0, rel=1e-5)


def test_gradients_below_the_norm_stay_as_they_are() -> None:
    made = parameters(torch.tensor([3.0, 4.0]))
    assert clip(made, max_norm=6.0).item() == 5.0
    assert gradients(made)[0].tolist() == [3.0, 4.0]


def test_the_scale_has_torchs_small_addition() -> None:
    made = parameters(torch.tensor([3e-6, 4e-6]))
    clip(made, max_norm=3e-6)
    # 3e-6 / (5e-6 + 1e-6) is 1/2.
    assert gradients(made)[0].tolist() == pytest.approx([1.5e-6, 2e-6], rel=1e-6)


def test_clipping_by_value_cuts_each_entry() -> None:
    made = parameters(torch.tensor([-3.0, 0.25, 4.0]), None)
    assert clip(made, max_value=0.5).item() == pytest.approx((9 + 1 / 16 + 16) ** 0.5)
    assert gradients(made)[0].tolist() == [-0.5, 0.25, 0.5]


def test_without_a_limit_nothing_is_clipped() -> None:
    made = parameters(torch.tensor([3e9, 4e9]))
    assert clip(made).item() == 5e9
    assert gradients(made)[0].tolist() == [3e9, 4e9]


def test_a_norm_that_is_not_finite_shows() -> None:
    assert not clip(parameters(torch.tensor([1.0, float("inf")])), max_norm=1.0).isfinite()
