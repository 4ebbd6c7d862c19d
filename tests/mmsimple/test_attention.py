"""Attention against sums written out: which query sees which keys, and which heads belong together."""

from __future__ import annotations

from math import exp, sqrt

import pytest
import torch
from torch import Tensor

from mmsimple.attention import Attention, Visibility
from tests.mmsimple.small import apart, drawn, random

HEADS = 4
HEAD_DIM = 5
LENGTH = 6


def attention(kv_heads: int, *, bias: bool = False, dropout: float = 0.0) -> Attention:
    size = HEADS * HEAD_DIM
    return drawn(Attention(size, HEADS, kv_heads, projection_bias=bias, output_bias=bias, dropout=dropout))


def written_out(module: Attention, x: Tensor, visible: Tensor) -> Tensor:
    """One query and one head at a time, with the weights of a module; `visible` [S, S] says what a query sees."""

    def rows(linear: torch.nn.Linear, head: int) -> Tensor:
        """[B, S, D]: what a linear layer gives to one head."""
        part = slice(head * HEAD_DIM, (head + 1) * HEAD_DIM)
        out = x @ linear.weight[part].T
        return out if linear.bias is None else out + linear.bias[part]

    keys_of = HEADS // (module.proj_k_dense_layer.out_features // HEAD_DIM)
    mixed = torch.zeros(*x.shape[:2], HEADS * HEAD_DIM)
    for head in range(HEADS):
        q = rows(module.proj_q_dense_layer, head)
        k, v = (rows(each, head // keys_of) for each in (module.proj_k_dense_layer, module.proj_v_dense_layer))
        for sample in range(len(x)):
            for query in range(LENGTH):
                seen = [key for key in range(LENGTH) if visible[query, key]]
                weights = [exp(float(q[sample, query] @ k[sample, key]) / sqrt(HEAD_DIM)) for key in seen]
                for key, weight in zip(seen, weights, strict=True):
                    start = head * HEAD_DIM
                    mixed[sample, query, start : start + HEAD_DIM] += weight / sum(weights) * v[sample, key]
    out = mixed @ module.proj_output_dense_layer.weight.T
    return out if module.proj_output_dense_layer.bias is None else out + module.proj_output_dense_layer.bias


EVERYTHING = torch.ones(LENGTH, LENGTH, dtype=torch.bool)
CAUSAL = EVERYTHING.tril()
WINDOW = CAUSAL & EVERYTHING.triu(-2)
VISIBILITIES = {
    "everything": (Visibility(), EVERYTHING),
    "causal": (Visibility(is_causal=True), CAUSAL),
    "window": (Visibility(mask=WINDOW), WINDOW),
}


@torch.inference_mode()
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
@pytest.mark.parametrize(("visible", "expected"), VISIBILITIES.values(), ids=VISIBILITIES.keys())
def test_every_query_head_reads_its_group_and_what_it_may_see(
    kv_heads: int, visible: Visibility, expected: Tensor
) -> None:
    module, x = attention(kv_heads), random(2, LENGTH, HEADS * HEAD_DIM)
    assert apart(module(x, visible), written_out(module, x, expected)) < 1e-6


@torch.inference_mode()
def test_every_projection_may_have_a_bias() -> None:
    module, x = attention(2, bias=True), random(2, LENGTH, HEADS * HEAD_DIM)
    assert apart(module(x), written_out(module, x, EVERYTHING)) < 1e-6


@torch.inference_mode()
def test_dropout_is_for_training_alone() -> None:
    module, x = attention(2, dropout=0.5), random(2, LENGTH, HEADS * HEAD_DIM)
    assert torch.equal(module(x), module(x))
    module.train()
    assert not torch.equal(module(x), module(x))
