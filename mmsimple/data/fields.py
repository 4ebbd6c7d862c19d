"""What fields of a picture's steps may hold, in a params file as in a preprocessor_config.json."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from mmsimple.sections.supported import require, shown

# PIL suspects a bomb in more than 9459 x 9459 pixels.
MAX_SIDE = 2**13
FLOAT32 = torch.finfo(torch.float32)


@dataclass(frozen=True)
class Kind:
    """What a field may hold, in words and as a test."""

    words: str
    holds: Callable[[Any], bool]

    def checked(self, value: Any, where: str, path: str) -> Any:
        """The value, a list as a tuple. Raises InputRefused, naming file and field."""
        require(self.holds(value), where, f"{path} is {shown(value)}: it must be {self.words}")
        return tuple(value) if isinstance(value, list) else value


def _is_integer(value: Any, least: int, most: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and least <= value <= most


def _is_number(value: Any) -> bool:
    """Finite, and in float32 too."""
    return isinstance(value, int | float) and not isinstance(value, bool) and abs(value) <= FLOAT32.max


def _is_list(length: int, holds: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: isinstance(value, list) and len(value) == length and all(map(holds, value))


SIDE = Kind(f"an integer from 1 to {MAX_SIDE}", lambda value: _is_integer(value, 1, MAX_SIDE))
SIDES = Kind(f"{SIDE.words}, or [height, width]", lambda value: SIDE.holds(value) or _is_list(2, SIDE.holds)(value))
COLOR = Kind("[red, green, blue], integers from 0 to 255", _is_list(3, lambda value: _is_integer(value, 0, 255)))
MEAN = Kind("three numbers", _is_list(3, _is_number))
STD = Kind("three numbers above 0", _is_list(3, lambda value: _is_number(value) and value >= FLOAT32.tiny))
SWITCH = Kind("true or false", lambda value: isinstance(value, bool))


def one_of(*names: str) -> Kind:
    return Kind(" or ".join(names), lambda value: value in names)
