"""Dotted paths into nested configs: `a.b.0.c` is key, key, list index, key. Nothing is modified in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from mmconvert.excerpt import excerpt


class _Absent:
    def __repr__(self) -> str:
        return "absent"


# What `get` finds where there is no field, and what a rule gives for one that must not be written.
ABSENT = _Absent()


def get(config: Any, path: str) -> Any:
    """The value at a dotted path (numbers index lists), or ABSENT."""
    for name in path.split(".") if path else ():
        if isinstance(config, Mapping) and name in config:
            config = config[name]
        elif isinstance(config, list) and name.isdigit() and int(name) < len(config):
            config = config[int(name)]
        else:
            return ABSENT
    return config


def put(config: Any, path: str, value: Any) -> Any:
    """A copy of the config with the value at a dotted path; what is missing on the way is made."""
    name, _, rest = path.partition(".")
    inner = get(config, name)
    new = put({} if inner is ABSENT else inner, rest, value) if rest else value
    if isinstance(config, list) or (name.isdigit() and not config):
        items = list(config)
        items[int(name) : int(name) + 1] = [new]
        return items
    return {**config, name: new}


def without(config: Any, path: str) -> Any:
    """A copy of the config without what lies at a dotted path; the config itself where nothing does."""
    name, _, rest = path.partition(".")
    inner = get(config, name)
    if inner is ABSENT:
        return config
    if rest:
        return put(config, name, without(inner, rest))
    if isinstance(config, list):
        return [item for at, item in enumerate(config) if at != int(name)]
    return {key: value for key, value in config.items() if key != name}


def fields(config: Mapping[str, Any], known: Iterable[str]) -> Iterator[tuple[str, Any]]:
    """Every (path, value) of a config, looking only as deep inside a value as some of the `known` paths lie.

    Raises ValueError for a field there whose name is empty or has a dot in it, so that its path would lead elsewhere.
    """
    inner = {path[:at] for path in known for at in range(len(path)) if path[at] == "."}

    def look(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if path and path not in inner:
            yield path, value
        elif isinstance(value, Mapping | list):
            for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
                if name == "" or "." in str(name):
                    raise ValueError(f"{path or 'it'} has a field {excerpt(name)!r}, which is no field's name")
                yield from look(item, f"{path}.{name}" if path else str(name))

    return look(config, "")


def leaves(config: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every (path, value) of a config that holds no others: scalars, and whatever is empty."""
    if not config or not isinstance(config, Mapping | list):
        yield path, config
        return
    for name, value in config.items() if isinstance(config, Mapping) else enumerate(config):
        yield from leaves(value, f"{path}.{name}" if path else str(name))


def differing(a: Any, b: Any) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """The leaves that differ; one that a side lacks is ABSENT there.

    `true` is not 1, but 1 is 1.0: YAML and JSON writers differ in that.
    """
    left, right = dict(leaves(a)), dict(leaves(b))
    for path in left | right:
        x, y = left.get(path, ABSENT), right.get(path, ABSENT)
        if x != y or isinstance(x, bool) != isinstance(y, bool):
            yield path, (x, y)
