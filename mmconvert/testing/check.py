"""What a check is: it looks for problems, and fails with the first one."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import wraps

from mmconvert.configs import Translation
from mmconvert.converter import Converter
from mmconvert.errors import InputRefused
from mmconvert.spec import Config, Expansion, Side, expand

Check = Callable[[Converter, Sequence[Config]], None]


def check(find: Callable[[Converter, Sequence[Config]], Iterator[str]]) -> Check:
    """A check from what finds problems: it fails with the first one."""

    @wraps(find)
    def run(converter: Converter, configs: Sequence[Config]) -> None:
        problem = next(find(converter, configs), None)
        if problem is not None:
            raise AssertionError(f"{converter.model}: {problem}")

    return run


def translated(converter: Converter, side: Side, config: Config) -> Translation:
    try:
        return converter.configs.translate(side, config, where=f"a config of {converter.format(side).name}")
    except InputRefused as error:
        raise AssertionError(f"{converter.model}: {error}") from error


def expansion_of(converter: Converter, translation: Translation) -> Expansion:
    """The tables written out for a config of side a that was translated."""
    try:
        return expand(converter.tables, converter.configs.b.read(translation.target), translation.source)
    except (ArithmeticError, LookupError, TypeError, ValueError) as error:
        raise AssertionError(
            f"{converter.model}: the tables ask for a size that cannot be had: {type(error).__name__}: {error}"
        ) from error


def listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)) or "nothing"
