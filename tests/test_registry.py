"""Paths between formats, through as few converters as there are."""

from __future__ import annotations

import pytest

from mmconvert import registry
from mmconvert.errors import NoConversion
from mmconvert.releases import Release
from mmconvert.spec import A, B


def said(model: str, source: str, target: str) -> list[str]:
    return [str(hop) for hop in registry.path(model, source, target)]


def test_one_converter_leads_both_ways() -> None:
    assert said("llama", "hf", "cs") == ["llama: hf -> cs"]
    assert said("llama", "cs", "hf") == ["llama: cs -> hf"]


def test_two_formats_without_a_converter_meet_in_a_third() -> None:
    assert said("mmsimple-llava", "hf", "llava") == ["mmsimple-llava: hf -> cs", "mmsimple-llava: cs -> llava"]


def test_a_format_to_itself_goes_out_and_back() -> None:
    assert said("llama", "hf", "hf") == ["llama: hf -> cs", "llama: cs -> hf"]


def test_a_format_with_releases_leads_to_itself() -> None:
    (hop,) = registry.path("llama", "cs", "cs")
    assert (str(hop), hop.converter.a_releases) == ("llama: cs -> cs", hop.converter.b_releases)


def test_where_no_way_leads_the_existing_ones_are_named() -> None:
    with pytest.raises(NoConversion, match=r"llama: no way from hf to llava; it has cs -> cs, cs -> hf, hf -> cs"):
        registry.path("llama", "hf", "llava")
    with pytest.raises(NoConversion, match=r"gpt2: .* no converters"):
        registry.path("gpt2", "hf", "cs")


def test_every_side_of_every_converter_is_listed_once() -> None:
    converters = registry.converters()
    assert list(registry.formats()) == [(each, side) for each in converters for side in (A, B)]
    names = [(each.model, each.a.name, each.b.name) for each in converters]
    assert names == sorted(set(names))


def test_the_release_is_the_newest_or_the_one_asked_for() -> None:
    path = registry.path("mmsimple-llava", "llava", "cs")
    assert registry.release_of(path, None) == Release(2, 10)
    assert registry.release_of(path, Release(2, 3)) == Release(2, 3)
    with pytest.raises(NoConversion, match=r"release 2\.2 is not known; 2\.3 to 2\.10 are"):
        registry.release_of(path, Release(2, 2))


def test_only_cs_has_releases() -> None:
    path = registry.path("llama", "cs", "hf")
    assert registry.release_of(path, None) is None
    with pytest.raises(NoConversion, match="hf has no releases"):
        registry.release_of(path, Release(2, 4))
