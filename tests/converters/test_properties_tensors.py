"""Any checkpoint of any family: which tensors it has on both sides, and where each of its rows goes and comes back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmconvert import registry
from mmconvert.assembly import Assembly, assemble
from mmconvert.converter import Converter
from mmconvert.demands import Demands, demands
from mmconvert.errors import InputRefused
from mmconvert.options import Options
from mmconvert.paths import put
from mmconvert.plans import PlannedTensor
from mmconvert.registry import Hop
from mmconvert.sources import TensorRef
from mmconvert.spec import A, B, Config, Side
from tests.converters.checkpoints import FLOAT32, Tensors, Weights, checkpoint, contents, taken, weights
from tests.converters.properties import CONVERTERS, IMAGE, JOINED, TEXT, Sample, every_converter, examples
from tests.converters.reference import Holding, held, written
from tests.converters.reference_rows import through_side_b
from tests.converters.strategies import samples

Shapes = dict[str, tuple[int, ...]]

# What side a never has is made.
OPTIONS = Options(init={"lm_head": 0})


def converted(converter: Converter, side: Side, config: Config, tensors: Mapping[str, TensorRef]) -> Assembly:
    """A checkpoint of one side taken to the other."""
    return assemble(checkpoint(converter, side, config, tensors), [Hop(converter, side)], OPTIONS)


def target(assembly: Assembly) -> dict[str, Any]:
    return dict(assembly.legs[-1].configs.target)


def shapes(tensors: Mapping[str, TensorRef] | Sequence[PlannedTensor]) -> Shapes:
    found = tensors.values() if isinstance(tensors, Mapping) else tensors
    return {each.key: each.shape for each in found}


def demanded(found: Demands) -> Shapes:
    return {key: origin.shape for key, origin in found.tensors.items()}


def all_of_b(holding: Holding) -> Tensors:
    """Everything that side b holds, with what side a never has."""
    return FLOAT32.held(holding, B, beside=True)


@every_converter
@examples(15)
@given(data=st.data())
def test_a_config_demands_what_its_checkpoints_hold(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name], large=True))
    holding, anew = held(sample), written(sample, converter.a.name)
    ours, theirs = FLOAT32.held(anew, A, copies=False), all_of_b(holding)
    there = converted(converter, A, sample.config, FLOAT32.held(holding, A, beside=data.draw(st.booleans())))
    back = converted(converter, B, target(there), theirs)
    assert shapes(there.tensors) == shapes(theirs)
    assert shapes(back.tensors) == shapes(ours)
    # Without tensors, only a config that says how deep its projector is can tell it.
    config = sample.config if sample.says_depth else sample.plain
    release = data.draw(st.sampled_from(converter.b_releases))
    for side, said in ((A, config), (B, target(there))):
        described = checkpoint(converter, side, said, {})
        assert demanded(demands(described, converter.a.name)) == shapes(ours)
        assert demanded(demands(described, converter.b.name, release)) == shapes(theirs)


@every_converter
@examples(30)
@given(data=st.data())
def test_every_row_goes_where_the_reference_has_it_and_comes_back(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding, made = held(sample), data.draw(weights())
    source = made.held(holding, A, copies=data.draw(st.booleans()), beside=data.draw(st.booleans()))
    there = converted(converter, A, sample.config, source)
    found = contents(there.tensors)
    for each in holding.tensors:
        ref = source[each.a]
        assert found[each.b] == (ref.dtype.name, each.shape, each.moved(ref.read())), each.b
    for copy, of in holding.copies_b:
        assert found[copy] == found[of], copy
    back = converted(converter, B, target(there), taken(there.tensors))
    assert contents(back.tensors) == through_side_b(source, holding, written(sample, converter.a.name))


@every_converter
@examples(15)
@given(data=st.data())
def test_side_b_goes_out_and_back_and_to_any_release_as_it_is(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding, made = held(sample), data.draw(weights())
    section = converter.configs.translate(A, sample.plain).target
    source = made.held(holding, B, beside=True)
    moved = converted(converter.between_releases(), A, section, source)
    assert contents(moved.tensors) == contents(source.values())
    assert target(moved) == section
    out = converted(converter, B, section, source)
    back = contents(converted(converter, A, target(out), taken(out.tensors)).tensors)
    # What was made anew cannot be what it was.
    kept = {key: each for key, each in contents(source.values()).items() if key not in dict(holding.only_b)}
    assert {key: back[key] for key in kept} == kept
    assert back.keys() == source.keys()


@every_converter
@examples(15)
@given(data=st.data())
def test_through_side_b_every_format_of_side_a_holds_the_same(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding, made = held(sample), data.draw(weights())
    tensors = made.held(holding, A, beside=True)
    source = checkpoint(converter, A, sample.config, tensors)
    for form in sorted({each.a.name for each in CONVERTERS.values() if each.model == converter.model}):
        hops = registry.path(converter.model, converter.a.name, form)
        field = unsayable_projector(sample, form)
        if field is None:
            found, anew = assemble(source, hops, OPTIONS).tensors, written(sample, form)
            assert contents(found) == through_side_b(tensors, holding, anew)
            vocabulary = {each.a for each in anew.tensors if each.vocabulary and JOINED in (sample.form, form)}
            assert {each.rule for each in found if each.key not in vocabulary} == {"copied"}
        else:
            with pytest.raises(InputRefused, match=field):
                assemble(source, hops, OPTIONS)


def unsayable_projector(sample: Sample, form: str) -> str | None:
    """What of the sample's projector this format of side a has no word for."""
    if form == JOINED and sample.depth not in (0, 2):
        return f"layers_units has {sample.depth} linear layers"
    return "use_bias" if form != JOINED and not sample.projector_bias else None


@every_converter
@examples(15)
@given(data=st.data())
def test_a_checkpoint_under_another_prefix_is_the_same(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding = held(sample)
    section = converter.configs.translate(A, sample.plain).target
    for side, config in ((A, sample.plain), (B, section)):
        usual = FLOAT32.held(holding, side, beside=True)
        expected = contents(converted(converter, side, config, usual).tensors)
        for found, meant in converter.format(side).aliases:
            renamed = {
                found + key.removeprefix(meant) if key.startswith(meant) else key: ref for key, ref in usual.items()
            }
            assert renamed.keys() != usual.keys()
            assert contents(converted(converter, side, config, renamed).tensors) == expected


@pytest.mark.parametrize("name", [name for name, each in CONVERTERS.items() if each.substitutes])
@examples(15)
@given(data=st.data())
def test_a_tower_inside_the_text_file_stands_for_the_one_beside_it(name: str, data: st.DataObject) -> None:
    converter, sample = CONVERTERS[name], data.draw(samples(CONVERTERS[name]))
    holding, made = held(sample), data.draw(weights())
    source = made.held(holding, A, copies=False)
    expected = contents(converted(converter, A, sample.config, source).tensors)
    tower = {key: ref for key, ref in source.items() if key.startswith(f"{IMAGE}/")}
    rest = {key: ref for key, ref in source.items() if key not in tower}
    inside = {key.replace(f"{IMAGE}/", f"{TEXT}/model.vision_tower.vision_tower."): ref for key, ref in tower.items()}
    # Where the config says that it was trained, whatever lies beside it is not used; where not, both must agree.
    trained = put(sample.config, f"{TEXT}.unfreeze_mm_vision_tower", True)
    other = {key: ref for key, ref in Weights(-1, made.dtypes).held(holding, A).items() if key in tower}
    for config, beside in ((trained, {}), (trained, other), (sample.config, tower)):
        found = converted(converter, A, config, {**rest, **inside, **beside})
        assert contents(found.tensors) == expected
        assert len(found.holdings.twins) == (len(tower) if beside is tower else 0)
