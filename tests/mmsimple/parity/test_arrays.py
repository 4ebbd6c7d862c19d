"""Arrays into torch and back, and weights rounded."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from mmconvert.dtypes import BY_FLAG
from mmsimple.parity.arrays import arrays, ids, past, pixels, round_weights


def linear() -> nn.Linear:
    layer = nn.Linear(1, 2)
    layer.weight.data = torch.tensor([[1.0], [1 + 2**-10]])
    layer.bias.data = torch.tensor([2.0, 2**-30])
    return layer


def test_a_weight_becomes_what_its_type_would_keep() -> None:
    layer = linear()
    round_weights("text", layer, {"text": BY_FLAG["bf16"]})
    assert layer.weight.dtype == torch.float32
    assert layer.weight.flatten().tolist() == [1.0, 1.0]


def test_fp16_loses_what_is_too_small_for_it() -> None:
    layer = linear()
    round_weights("text", layer, {"": BY_FLAG["fp16"]})
    assert layer.weight.flatten().tolist() == [1.0, 1 + 2**-10]
    assert layer.bias.tolist() == [2.0, 0.0]


def test_a_part_of_its_own_wins_over_all_others() -> None:
    layer = linear()
    round_weights("text", layer, {"": BY_FLAG["bf16"], "text": BY_FLAG["fp32"]})
    assert layer.weight.flatten().tolist() == [1.0, 1 + 2**-10]


def test_other_parts_stay() -> None:
    layer = linear()
    round_weights("text", layer, {"vision": BY_FLAG["bf16"]})
    assert layer.weight.flatten().tolist() == [1.0, 1 + 2**-10]


def test_ids_become_integers_and_pixels_floats_of_their_own() -> None:
    given = np.array([[1, 2]], dtype=np.int32)
    given.flags.writeable = False
    assert ids(given).dtype == torch.int64
    assert pixels(given).dtype == torch.float32
    assert arrays({"x": ids(given)})["x"].dtype == np.float32


def test_a_window_is_passed_by_a_few_tokens() -> None:
    assert past(6) == 14
    assert past(None) == 0
