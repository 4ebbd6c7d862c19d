"""Sections of `trainer.init` that are one name with its fields, `{AdamW: {eps: 1.0e-8}}`, and what fields may hold."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from mmconvert.errors import InputRefused
from mmconvert.excerpt import excerpt
from mmsimple.data.fields import FLOAT32, Kind
from mmsimple.sections.supported import below, check_names, nearest, require, shown


def is_number(value: Any, least: float = 0.0) -> bool:
    """From `least` to the end of float32, in which updates are computed."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value <= FLOAT32.max


def is_integer(value: Any, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least


NOT_NEGATIVE = Kind("a number, 0 or more", is_number)
POSITIVE = Kind("a number above 0", lambda value: is_number(value, FLOAT32.tiny))
UPDATES = Kind("a whole number of updates, at least 1", lambda value: is_integer(value, 1))
UPDATES_OR_NULL = Kind(f"{UPDATES.words}, or null", lambda value: value is None or UPDATES.holds(value))
# Fields that CS has and mmsimple does not compute: they may say what they say by default.
OFF = Kind("false, all that mmsimple computes", lambda value: value is False)
NULL = Kind("null, all that mmsimple computes", lambda value: value is None)


def read_name(
    section: Any, what: str, computed: Collection[str], known: Collection[str], where: str, path: str
) -> tuple[str, Mapping[str, Any], str]:
    """The name in a section at a path of the file `where`, the fields below it (null stands for none), and their path.

    Raises InputRefused, naming file and path, for what is no such section; for a name that is `known` but not among
    those that are `computed`; and for any other, with the nearest one, of those that are computed if there is any.
    """
    if not isinstance(section, Mapping) or len(section) != 1:
        given = f"has {len(section)} names" if isinstance(section, Mapping) else f"is {shown(section)}"
        raise InputRefused(f"{where}: {path} {given}: it must be the name of one {what}, with its fields below it")
    name, fields = next(iter(section.items()))
    at = below(path, excerpt(name))
    require(name in computed or name not in known, where, f"{at}: mmsimple computes {', '.join(computed)} only")
    require(name in computed, where, f"{at}: no such {what}{nearest(name, computed) or nearest(name, known)}")
    require(fields is None or isinstance(fields, Mapping), where, f"{at} is {shown(fields)}: it must be a mapping")
    return name, fields or {}, at


def read_fields(
    section: Mapping[str, Any], kinds: Mapping[str, Kind], defaults: Mapping[str, Any], where: str, path: str
) -> dict[str, Any]:
    """All fields of a section, lists as tuples.

    Raises InputRefused, naming file and path, for one that does not exist, with the nearest that does; for one that is
    missing and has no default; and for a value that its kind does not hold.
    """
    check_names(section, kinds, where, path)
    full = {**defaults, **section}
    for name in kinds:
        require(name in full, where, f"{below(path, name)} is missing")
    return {name: kind.checked(full[name], where, below(path, name)) for name, kind in kinds.items()}
