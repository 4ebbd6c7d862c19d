"""The model's own section of a params file: where it stands, and what else a flat file keeps in it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmconvert.params import moves
from mmconvert.params.carry import Move
from mmconvert.paths import ABSENT, get, put

FLAT, NESTED = "model", "trainer.init.model"
# Fields of the run, not of the model, that stand in a flat file's model section: those that move elsewhere under
# `trainer`, and two that 2.1 moved already.
RUN_FIELDS = {
    *(row.flat.key for row in moves.ROWS if isinstance(row, Move) and row.flat.section == FLAT),
    *("precision_opt_level", "use_bfloat16"),
}


def model_section(document: Any) -> dict[str, Any]:
    """What a params document, flat or under `trainer`, says of the model itself.

    Raises ValueError, naming the path, where it says nothing.
    """
    where = _where(document)
    section = get(document, where)
    if not isinstance(section, Mapping):
        _check_above(document, where)
        said = "is absent" if section is ABSENT else f"is {section!r:.60}, but must be a mapping"
        raise ValueError(f"{where} {said}")
    return {name: value for name, value in section.items() if where == NESTED or name not in RUN_FIELDS}


def model_fields(document: Any, names: Iterable[str]) -> dict[str, Any]:
    """Those of some fields that a params document says of the model; none where it says nothing."""
    section = get(document, _where(document))
    return {name: section[name] for name in names if name in section} if isinstance(section, Mapping) else {}


def with_section(document: Any, section: Mapping[str, Any]) -> dict[str, Any]:
    """The document with another model section in place of its own; fields of the run that stand there stay.

    Raises ValueError, naming the path, where it has no place for one.
    """
    where = _where(document)
    _check_above(document, where)
    held = get(document, where) if where == FLAT else {}
    kept = {name: held[name] for name in held if name in RUN_FIELDS} if isinstance(held, Mapping) else {}
    changed: dict[str, Any] = put(document, where, {**kept, **section})
    return changed


def _where(document: Any) -> str:
    return NESTED if isinstance(document, Mapping) and "trainer" in document else FLAT


def _check_above(document: Any, where: str) -> None:
    """Raise ValueError for a document in which something else stands where the section's surroundings belong."""
    names = where.split(".")
    for depth in range(len(names)):
        path = ".".join(names[:depth])
        held = get(document, path)
        if held is not ABSENT and not isinstance(held, Mapping):
            hint = "; put one run into a file of its own" if path == "trainer" and isinstance(held, list) else ""
            raise ValueError(f"{path or 'the file'} is {held!r:.60}, but must be a mapping{hint}")
