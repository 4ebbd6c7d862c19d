"""Any config of any family: however it is written it means one thing, which every side and release can say."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmconvert import spellings
from mmconvert.converter import Converter
from mmconvert.errors import InputRefused
from mmconvert.paths import put
from mmconvert.releases import Release
from mmconvert.spec import A, B, Side
from tests.converters.properties import CONVERTERS, Sample, every_converter, examples, meaning
from tests.converters.reference import held
from tests.converters.strategies import samples
from tests.converters.strategies_unsayable import unsayable

NAMED_SINCE = Release(2, 4)


def names(sample: Sample) -> frozenset[str]:
    """What the sample's tensors are called on side a."""
    return frozenset(each.a for each in held(sample).tensors)


def section_of(converter: Converter, sample: Sample) -> dict[str, Any]:
    return dict(converter.configs.translate(A, sample.config, names(sample)).target)


@every_converter
@examples(30)
@given(data=st.data())
def test_a_config_means_the_same_however_it_is_written(name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    sample = data.draw(samples(converter, large=True))
    stated = converter.configs.translate(A, sample.plain)
    assert section_of(converter, sample) == stated.target
    assert meaning(converter, sample.config, names(sample)) == meaning(converter, sample.plain)


@every_converter
@examples(30)
@given(data=st.data())
def test_a_config_comes_back_from_every_release(name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    sample = data.draw(samples(converter, large=True))
    section, changes = section_of(converter, sample), converter.b.changes
    for release in converter.b_releases:
        read = spellings.read(changes, spellings.write(changes, section, release))
        assert read == section, release
    back = converter.configs.translate(B, section).target
    assert meaning(converter, back) == meaning(converter, sample.plain)
    assert converter.configs.translate(A, back).target == section


@every_converter
@examples(15)
@given(data=st.data())
def test_a_section_goes_from_any_release_to_any_other(name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    section = section_of(converter, data.draw(samples(converter, large=True)))
    changes, between = converter.b.changes, converter.between_releases()
    direct = {release: spellings.write(changes, section, release) for release in converter.b_releases}
    for start, end in pairwise(data.draw(st.permutations(converter.b_releases))):
        moved = between.configs.translate(A, spellings.read(changes, direct[start]))
        assert spellings.write(changes, moved.target, end) == direct[end], (start, end)
        assert moved.dropped == ()


@every_converter
@examples(15)
@given(data=st.data())
def test_a_section_is_known_as_its_model_s_in_every_release(name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    section = section_of(converter, data.draw(samples(converter, large=True)))
    windowless = converter.model == "mistral" and section.get("attention_sliding_window_length") is None
    for release in converter.b_releases:
        known = converter.b.parts[""](spellings.write(converter.b.changes, section, release))
        # Before models had names, a Mistral without a window was a LLaMA.
        assert known or (windowless and release < NAMED_SINCE), release


@every_converter
@pytest.mark.parametrize("side", [A, B])
@examples(40)
@given(data=st.data())
def test_a_value_that_cannot_be_said_is_refused_by_name(side: Side, name: str, data: st.DataObject) -> None:
    converter = CONVERTERS[name]
    sample = data.draw(samples(converter))
    config = sample.plain if side == A else section_of(converter, sample)
    path, values = data.draw(st.sampled_from(unsayable(converter, side, sample)))
    changed = put(config, path, data.draw(values))
    with pytest.raises(InputRefused) as refused:
        converter.configs.translate(side, changed)
    assert path.rpartition(".")[2] in str(refused.value)
