"""Norms of gradients and parameters, and gradients that are too large."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_value_, clip_grads_with_norm_, get_total_norm


def gradient_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm of all gradients together, a scalar; parameters without one do not count."""
    return _norm(parameter.grad for parameter in parameters if parameter.grad is not None)


def parameter_norm(parameters: Iterable[nn.Parameter]) -> Tensor:
    """The L2 norm of all parameters together, a scalar."""
    return _norm(parameters)


def clip(parameters: Iterable[nn.Parameter], max_norm: float | None = None, max_value: float | None = None) -> Tensor:
    """Make gradients smaller, in place, and give the norm that they had before.

    With a `max_norm` all are multiplied by max_norm / (norm + 1e-6), where that is less than 1; with a `max_value`
    each entry is cut off there. Where the norm is not finite, gradients are spoilt: see that it is before an update.
    """
    having = [parameter for parameter in parameters if parameter.grad is not None]
    norm = gradient_norm(having)
    if max_norm is not None:
        clip_grads_with_norm_(having, max_norm, norm)
    # torch fails where there is nothing to cut.
    if max_value is not None and having:
        clip_grad_value_(having, max_value)
    return norm


def _norm(tensors: Iterable[Tensor]) -> Tensor:
    # torch rounds the norm of a half precision tensor to that precision; the norm of a norm is itself.
    return get_total_norm(
        [torch.linalg.vector_norm(each, dtype=torch.float32) if each.dtype.itemsize < 4 else each for each in tensors]
    )
