"""Dotted paths into nested configs: `a.b.0.c` is key, key, list index, key. Nothing is modified in place."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any


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
    """Every (path, value) of a config, looking only as deep inside a value as some of the `known` paths lie."""
    inner = {path[:at] for path in known for at in range(len(path)) if path[at] == "."}

    def look(value: Any, path: str) -> Iterator[tuple[str, Any]]:
        if path and path not in inner:
            yield path, value
        elif isinstance(value, Mapping | list):
            for name, item in value.items() if isinstance(value, Mapping) else enumerate(value):
                yield from look(item, f"{path}.{name}" if path else str(name))

    return look(config, "")
