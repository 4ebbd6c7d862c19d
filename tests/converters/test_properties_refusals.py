"""Of any checkpoint of any family: no tensor can be missing, foreign, of another shape or of integers unnoticed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from mmconvert.assembly import Assembly, assemble
from mmconvert.converter import Converter
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused
from mmconvert.options import Options
from mmconvert.registry import Hop
from mmconvert.sources import TensorRef
from mmconvert.spec import A, B, Config, Key, Side
from tests.converters.checkpoints import FLOAT32, Tensors, checkpoint
from tests.converters.properties import CONVERTERS, TEXT, every_converter, examples
from tests.converters.reference import Holding, held
from tests.converters.strategies import samples

NUMBERS = [dtype for dtype in BY_NAME.values() if not dtype.is_float]
PROJECTOR = f"{TEXT}/model.mm_projector."


@dataclass(frozen=True, repr=False)
class Case:
    """A sound checkpoint, a way for it to go, and what of it may be otherwise.

    `copies` are names that stand for one another; `beside` holds what is left behind. Where `projector_tells`, the
    projector's own tensors say how deep it is.
    """

    converter: Converter
    side: Side
    config: Config
    tensors: Tensors
    copies: Mapping[str, str]
    beside: frozenset[str]
    projector_tells: bool

    def __repr__(self) -> str:
        return f"{Hop(self.converter, self.side)}, {self.config}, {list(self.tensors)}"

    def take(self, tensors: Mapping[str, TensorRef], *init: str) -> Assembly:
        # A head that side a never has must be made, where it is side a that the way starts from.
        headless = self.converter.model == "llama-headless" and self.converter.a is not self.converter.b
        always = ("lm_head",) if headless else ()
        source = checkpoint(self.converter, self.side, self.config, tensors)
        return assemble(source, [Hop(self.converter, self.side)], Options(init=dict.fromkeys((*always, *init), 0)))

    def refusal(self, tensors: Mapping[str, TensorRef], *init: str) -> str:
        with pytest.raises(InputRefused) as refused:
            self.take(tensors, *init)
        return str(refused.value)

    def names(self, refusal: str, key: str) -> bool:
        """Whether a refusal is about this key, or about its neighbours where these say whether there should be one."""
        if self.projector_tells and key.startswith(PROJECTOR):
            return PROJECTOR in refusal
        return re.search(rf"(?<![\w.]){re.escape(key)}(?!\w|\.\w)", refusal) is not None


@st.composite
def cases(draw: st.DrawFn, name: str) -> Case:
    """A sound checkpoint of either side, with or without what may be there besides, to be taken to any other format."""
    converter, side = CONVERTERS[name], draw(st.sampled_from([A, B]))
    sample = draw(samples(converter))
    holding, beside = held(sample), draw(st.booleans())
    # A head that only side b has must be there to go from release to release.
    between = side == B and draw(st.booleans())
    tensors = FLOAT32.held(holding, side, copies=draw(st.booleans()), beside=beside or between)
    config = sample.config if side == A else converter.configs.translate(A, sample.plain).target
    return Case(
        converter=converter.between_releases() if between else converter,
        side=A if between else side,
        config=config,
        tensors=tensors,
        copies=dict(holding.copies_a if side == A else holding.copies_b),
        beside=frozenset() if between else _left_behind(holding, side),
        projector_tells=side == A and not sample.says_depth,
    )


def _left_behind(holding: Holding, side: Side) -> frozenset[str]:
    return frozenset(name for name, _ in (holding.only_a if side == A else holding.only_b))


def _any_of(keys: Iterable[str]) -> st.SearchStrategy[str]:
    """One of the keys; each kind of tensor is as likely as any other, however many layers have one."""
    kinds: dict[str, list[str]] = {}
    for key in sorted(keys):
        kinds.setdefault(re.sub(r"\d+", "", key), []).append(key)
    return st.sampled_from(list(kinds.values())).flatmap(st.sampled_from)


def _has_a_copy(case: Case, key: str) -> bool:
    """Whether a tensor is there under a second name, which stands for it."""
    return any({name, of} <= case.tensors.keys() and key in (name, of) for name, of in case.copies.items())


@every_converter
@examples(25)
@given(data=st.data())
def test_a_tensor_that_is_missing_is_named(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    key = data.draw(_any_of(case.tensors))
    rest = {other: ref for other, ref in case.tensors.items() if other != key}
    if key in case.beside or _has_a_copy(case, key):
        assert case.take(rest).tensors
    else:
        assert case.names(case.refusal(rest), key)


@every_converter
@examples(25)
@given(data=st.data())
def test_a_tensor_under_another_name_is_named(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    # What is left behind is, whatever the layer in its name.
    key = data.draw(_any_of(case.tensors.keys() - case.beside))
    other = data.draw(_other_names(key))
    assume(other not in case.tensors)
    renamed = {other if each == key else each: ref for each, ref in case.tensors.items()}
    refusal = case.refusal({each: replace(ref, key=each) for each, ref in renamed.items()})
    assert case.names(refusal, key) or case.names(refusal, other)


@every_converter
@examples(25)
@given(data=st.data())
def test_a_tensor_that_does_not_belong_there_is_named(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    like = data.draw(_any_of(case.tensors.keys() - case.beside))
    key = data.draw(_other_names(like))
    assume(key not in case.tensors and key not in case.beside and key not in case.copies)
    assert case.names(case.refusal({**case.tensors, key: replace(case.tensors[like], key=key)}), key)


def _other_names(key: str) -> st.SearchStrategy[str]:
    """What a tensor may be called by mistake: of another layer or module, with another ending, or anything."""
    numbered = [re.sub(r"\.\d+\.", f".{layer}.", key, count=1) for layer in (4, 5, 40)]
    ending = key.removesuffix(".weight") + (".bias" if key.endswith(".weight") else ".weight")
    split = key.rpartition(".")[0] + ".base_layer." + key.rpartition(".")[2]
    ways = [*numbered, ending, split, f"{key}_", f"x{key}", f"{key}.qweight", key.upper(), "x"]
    return st.sampled_from([way for way in ways if way != key])


@every_converter
@examples(25)
@given(data=st.data())
def test_a_tensor_of_another_shape_is_named(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    key = data.draw(_any_of(case.tensors))
    shape = case.tensors[key].shape
    other = data.draw(_other_shapes(shape))
    changed = {**case.tensors, key: replace(case.tensors[key], shape=other)}
    if key in case.beside:
        assert case.take(changed).tensors
    else:
        assert case.names(case.refusal(changed), key)


@st.composite
def _other_shapes(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[int, ...]:
    """One dimension more, or less, or of another size; the dimensions in another order."""
    ways: list[tuple[int, ...]] = [(*shape[:at], 1, *shape[at:]) for at in range(len(shape) + 1)]
    for at, size in enumerate(shape):
        ways += [(*shape[:at], other, *shape[at + 1 :]) for other in (size - 1, size + 1, 2 * size, 0)]
        ways += [shape[:at] + shape[at + 1 :]]
    ways.append(shape[::-1])
    return draw(st.sampled_from([way for way in ways if way != shape]))


@every_converter
@examples(20)
@given(data=st.data())
def test_a_tensor_that_is_no_floating_point_number_is_named(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    key = data.draw(_any_of(case.tensors))
    changed = {**case.tensors, key: replace(case.tensors[key], dtype=data.draw(st.sampled_from(NUMBERS)))}
    if key in case.beside:
        assert case.take(changed).tensors
    else:
        assert case.names(case.refusal(changed), key)


def _can_be_made(converter: Converter) -> bool:
    rows = [row for table in converter.tables for row in table.rows if isinstance(row, Key)]
    return any(row.init is not None and row.b_only is None for row in rows)


@pytest.mark.parametrize("name", [name for name, each in CONVERTERS.items() if _can_be_made(each)])
@examples(20)
@given(data=st.data())
def test_what_can_be_made_may_be_missing_as_a_whole_and_never_in_part(name: str, data: st.DataObject) -> None:
    case = data.draw(cases(name))
    groups: dict[str, list[str]] = {}
    for key, pair in case.take(case.tensors).legs[0].expected().items():
        if pair.init is not None and not (case.projector_tells and key.startswith(PROJECTOR)):
            groups.setdefault(pair.init, []).append(key)
    assume(groups)
    made, keys = data.draw(st.sampled_from(sorted(groups.items())))
    gone = data.draw(st.sets(st.sampled_from(keys), min_size=1))
    rest = {key: ref for key, ref in case.tensors.items() if key not in gone}
    refusal = case.refusal(rest)
    assert (f"--init {made}=" in refusal) == (gone == set(keys))
    assert any(case.names(refusal, key) for key in gone)
    if gone == set(keys):
        invented = {each.subject for each in case.take(rest, made).invented if each.why.startswith("missing")}
        assert len(invented) == len(gone)
    else:
        assert f"--init {made} makes the whole, never a part" in case.refusal(rest, made)
