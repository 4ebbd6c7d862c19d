"""Every tensor of the target: options that fit, casts, and what is made where nothing was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import mmconvert
from mmconvert import Options
from mmconvert.assembly import Assembly, assemble, prevailing
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts import recognise
from mmconvert.plans import Plan
from mmconvert.registry import path
from mmconvert.sources import FileSpan, TensorRef

Make = Callable[..., Path]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]


def plan(source: Path, to: str = "cs", **options: Any) -> Plan:
    return mmconvert.plan(source, source.parent / "out", to, options=Options(**options))


def converted(source: Path, to: str = "cs", **options: Any) -> Path:
    out = source.parent / f"{source.name}-{to}"
    mmconvert.convert(source, out, to, options=Options(container="safetensors", **options), fsync=False)
    return out


def test_options_that_name_nothing_of_this_model_are_refused_with_what_there_is(llama: Path) -> None:
    with pytest.raises(UsageError, match=r"projector.*in this model is lm_head"):
        plan(llama, init={"projector": 1})
    with pytest.raises(UsageError, match=r"vision.*parts are text"):
        plan(llama, dtype={"vision": BY_NAME["float32"]})


def test_what_is_invented_is_the_same_in_both_directions(make_llama: Make, contents: Contents, tmp_path: Path) -> None:
    source = make_llama(tmp_path / "llama", edit=lambda tensors: tensors.pop("lm_head.weight"))
    through_cs = converted(converted(source, init={"lm_head": 5}), "hf")
    at_once = converted(source, "hf", init={"lm_head": 5})
    assert contents(through_cs) == contents(at_once)


def test_floats_that_cannot_be_cast_are_refused_by_name(make_clip: Make, tmp_path: Path) -> None:
    key = "vision_model.post_layernorm.bias"
    source = make_clip(tmp_path / "clip", edit=lambda t: t.update({key: torch.zeros(32).to(torch.float8_e5m2)}))
    assert plan(source, container="safetensors").tensors
    with pytest.raises(InputRefused, match=r"post_layernorm\.bias is float8_e5m2, which cannot be cast"):
        plan(source, dtype={"": BY_NAME["float16"]})


def test_the_prevailing_type_is_that_of_most_bytes() -> None:
    def ref(name: str, count: int) -> TensorRef:
        return TensorRef("key", BY_NAME[name], (count,), FileSpan(Path("file"), 0, 0))

    assert prevailing([ref("float32", 3), ref("bfloat16", 5), ref("int64", 99)]).name == "float32"
    assert prevailing([ref("float32", 2), ref("bfloat16", 5)]).name == "bfloat16"
    assert prevailing([ref("int64", 99)]).name == "float32"


# --- rows of one side alone -------------------------------------------------------------------------------------------

EMBEDDING, HEAD = "language_model.model.embed_tokens.weight", "language_model.lm_head.weight"
NEW = "rows 101 to 127 are new: each is the mean of the others"


def assembled(source: Path, to: str, **options: Any) -> Assembly:
    found = recognise(source)
    return assemble(found, path(found.node.model, found.node.format, to), Options(**options))


def remarks(found: Any) -> list[tuple[str, str]]:
    return [(each.subject, each.why) for each in found]


def test_rows_that_the_source_has_not_are_listed_as_invented(llava: Path) -> None:
    found = assembled(llava, "llava-hf")
    assert remarks(found.invented) == [(EMBEDDING, NEW), (HEAD, NEW)]
    assert found.cut == ()
    tensors = {each.key: each for each in found.tensors}
    for key in (EMBEDDING, HEAD):
        assert tensors[key].shape == (128, 48)
        assert tensors[key].rule == "copied, and 27 rows added, each the mean of the others"


def test_rows_that_the_target_has_not_are_listed_as_cut(llava: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined"
    mmconvert.convert(llava, joined, "llava-hf", fsync=False)
    embeddings = {"llava": "text_model/model.embed_tokens", "cs": "text_model.embedding_layer.word_embeddings"}
    for to, name in embeddings.items():
        found = assembled(joined, to)
        assert found.invented == ()
        assert remarks(found.cut)[0] == (EMBEDDING, f"rows 101 to 127: {name}.weight has no more than 101")
        assert [subject for subject, _ in remarks(found.cut)] == [EMBEDDING, HEAD]
        (tensor,) = (each for each in found.tensors if each.key == f"{name}.weight")
        assert (tensor.shape, tensor.rule) == ((101, 48), "the first 101 of 128 rows")


def test_rows_that_are_made_anew_are_cut_and_invented(llava: Path, tmp_path: Path) -> None:
    joined = tmp_path / "joined"
    mmconvert.convert(llava, joined, "llava-hf", fsync=False)
    found = assembled(joined, "llava-hf")
    assert remarks(found.invented) == [(EMBEDDING, NEW), (HEAD, NEW)]
    assert [subject for subject, _ in remarks(found.cut)] == [EMBEDDING, HEAD]


def test_a_cast_comes_after_the_mean(llava: Path, tmp_path: Path) -> None:
    narrow, wide = tmp_path / "narrow", tmp_path / "wide"
    mmconvert.convert(llava, narrow, "llava-hf", fsync=False)
    mmconvert.convert(llava, wide, "llava-hf", options=Options(dtype={"text": BY_NAME["float32"]}), fsync=False)
    tensors = {folder: mmconvert.open(folder)[EMBEDDING] for folder in (narrow, wide)}
    assert [ref.dtype.name for ref in tensors.values()] == ["bfloat16", "float32"]
    of_narrow, of_wide = (
        torch.frombuffer(bytearray(ref.read()), dtype=getattr(torch, ref.dtype.name)) for ref in tensors.values()
    )
    assert torch.equal(of_narrow.float(), of_wide)


def test_rows_of_what_is_invented_are_filled_too(make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "llava", edit=lambda tensors: tensors.pop("lm_head.weight"))
    out = tmp_path / "joined"
    mmconvert.convert(source, out, "llava-hf", options=Options(init={"lm_head": 5}), fsync=False)
    ref = mmconvert.open(out)[HEAD]
    head = torch.frombuffer(bytearray(ref.read()), dtype=getattr(torch, ref.dtype.name)).reshape(128, 48)
    assert head[101:].eq(head[127]).all()
    assert torch.allclose(head[127], head[:101].mean(0), atol=1e-6)
    assert not mmconvert.verify(source, out).problems
