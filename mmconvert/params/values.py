"""How one value is spelled on the two sides of a move or a rename."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

from mmconvert.paths import ABSENT


@dataclass(frozen=True)
class Spelling:
    """A value taken `up` to the newer spelling and `down` to the older one; ABSENT where it cannot be said there."""

    up: Callable[[Any], Any]
    down: Callable[[Any], Any]


def choices(*pairs: tuple[Any, Any], others: bool = False) -> Spelling:
    """Values that are spelled in pairs (older, newer); with `others`, any other one is spelled alike on both sides."""
    return Spelling(
        lambda value: _counterpart(value, pairs, others),
        lambda value: _counterpart(value, [(newer, older) for older, newer in pairs], others),
    )


def _counterpart(value: Any, pairs: Iterable[tuple[Any, Any]], others: bool) -> Any:
    for found, meant in pairs:
        # To Python, the numbers 1 and 0 equal the two truth values.
        if found == value and isinstance(found, bool) == isinstance(value, bool):
            return meant
    return value if others else ABSENT


AS_IT_IS = choices(others=True)
# A callback without arguments; null switches it off where it would run unasked.
SWITCH = choices((True, {}), (False, None))
SWITCHED_ON = choices((True, {}))
# A callback that is switched, or given its arguments.
ARGUMENTS = choices((True, {}), (False, None), others=True)
