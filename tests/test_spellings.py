"""Any release's spelling is read into the newest, and written back."""

from __future__ import annotations

from mmconvert import spellings
from mmconvert.releases import Release, span
from mmconvert.spec import Config
from mmconvert.spellings import Change


def renamed(since: str, old: str, new: str) -> Change:
    def respelled(config: Config, before: str, after: str) -> Config:
        return {after if name == before else name: value for name, value in config.items()}

    return Change(
        Release.parse(since),
        f"{old} is {new}",
        newer=lambda config: respelled(config, old, new),
        older=lambda config: respelled(config, new, old),
    )


# The order in which they are given must not matter: b became c only after a had become b.
CHANGES = (renamed("2.4", "b", "c"), renamed("2.2", "a", "b"))
RELEASES = span("2.1", "2.5")


def test_every_release_s_spelling_is_read_into_the_newest() -> None:
    assert [spellings.read(CHANGES, {name: 1, "x": 2}) for name in "abc"] == [{"c": 1, "x": 2}] * 3


def test_a_release_is_written_as_it_spells() -> None:
    written = [spellings.write(CHANGES, {"c": 1}, release) for release in RELEASES]
    assert written == [{"a": 1}, {"b": 1}, {"b": 1}, {"c": 1}, {"c": 1}]
    assert all(spellings.read(CHANGES, config) == {"c": 1} for config in written)


def test_the_spelling_tells_the_releases_that_may_have_written_it() -> None:
    def told(config: Config) -> tuple[list[str], list[str]]:
        candidates, reasons = spellings.releases(CHANGES, config, RELEASES)
        return [str(release) for release in candidates], reasons

    assert told({"a": 1}) == (["2.1"], ["before 2.2 a is b"])
    assert told({"c": 1}) == (["2.4", "2.5"], ["since 2.4 b is c"])
    assert told({"x": 1}) == ([str(release) for release in RELEASES], [])
    assert told({"a": 1, "c": 1})[0] == []
