"""Tables put through each other: one pass over the bytes, whatever the path."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mmconvert import registry
from mmconvert.errors import InputRefused
from mmconvert.layouts import recognise
from mmconvert.mapping import Origin, origins, translate

Q = "model.layers.0.self_attn.q_proj.weight"
CS_Q = "transformer_decoder.layers.0.self_attn.proj_q_dense_layer.weight"


def through(source: Path, target: str, **config: Any) -> dict[str, Origin]:
    checkpoint = recognise(source)
    hops = registry.path(checkpoint.node.model, checkpoint.node.format, target)
    names = frozenset(checkpoint.tensors)
    return origins(translate(hops, {**checkpoint.config, **config}, names, "source.json"))


def test_one_converter_orders_rows_and_says_so(llama: Path) -> None:
    found = through(llama, "cs")
    assert (found[CS_Q].key, found["lm_head.weight"].rule) == (Q, "copied")
    index = found[CS_Q].index
    assert index is not None
    assert list(index)[:4] == [0, 6, 1, 7]


def test_a_second_copy_follows_the_tensor_that_it_repeats(llama: Path) -> None:
    found = through(llama, "cs")
    names = list(found)
    assert names.index("ln_f.weight") == names.index("transformer_decoder.norm.weight") + 1
    assert found["ln_f.weight"].key == "model.norm.weight"
    assert "second copy" in found["ln_f.weight"].rule


def test_out_and_back_moves_nothing(llama: Path) -> None:
    found = through(llama, "hf")
    assert found.keys() == recognise(llama).tensors.keys()
    assert all((key, None, "copied") == (origin.key, origin.index, origin.rule) for key, origin in found.items())


def test_two_converters_are_one_step(llava: Path) -> None:
    found = through(llava, "hf")
    assert found["text_model/model.mm_projector.2.bias"].key == "text_model/model.mm_projector.2.bias"
    assert all(origin.index is None for origin in found.values())


def test_what_cannot_be_said_is_named_with_its_file(llama: Path) -> None:
    with pytest.raises(InputRefused, match=r"^source\.json: head_dim is 20"):
        through(llama, "cs", head_dim=20)
