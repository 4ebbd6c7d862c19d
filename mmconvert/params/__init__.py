"""Params files, the YAML documents that configure a training run, from one CS release to another."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from mmconvert.params import moves, renames
from mmconvert.params.section import model_fields, model_section, with_section
from mmconvert.releases import NEWEST, OLDEST, TRAINER, Release, span
from mmconvert.remark import Remark

__all__ = ["convert", "model_fields", "model_section", "oldest", "releases", "with_section"]

# What stands beside `model` in the params files of before `trainer`.
FLAT_SECTIONS = {"optimizer", "runconfig", "train_input", "eval_input"}


def convert(params: Mapping[str, Any], source: Release, target: Release) -> tuple[dict[str, Any], tuple[Remark, ...]]:
    """A params document of release `source` as `target` spells it, and a remark for every field that was dropped.

    Up to 2.2 a document has flat sections (`model`, `optimizer`, `runconfig`, `train_input`, `eval_input`); from 2.3
    on all of it stands under `trainer`. A flat document of 2.3 or later stays flat unless it goes below; one under
    `trainer` is of 2.3 or later, whatever `source` says. What the model's own section holds is not looked into, but
    for the few fields that 2.3 moved out of it.

    Going there and back changes nothing, except that a value with several spellings comes back in the commonest one.
    Raises ValueError, naming the path, for a document that is not shaped as expected.
    """
    if not isinstance(params, Mapping):
        raise ValueError(f"the file is {params!r:.60}, but must be a mapping")
    nested = "trainer" in params
    if nested and not isinstance(params["trainer"], Mapping):
        raise ValueError(f"trainer is {params['trainer']!r:.60}, but must be one mapping, of one run")
    if nested and target >= TRAINER:
        return dict(params), ()
    if not nested:
        moves.check_flat(params)
    flat, lowered = moves.to_flat(params) if nested else (params, ())
    spelled, renamed = renames.between(flat, max(source, TRAINER) if nested else source, target)
    lifted, left = moves.to_trainer(spelled) if source < TRAINER <= target else (dict(spelled), ())
    return lifted, (*lowered, *renamed, *left)


def releases(document: Mapping[str, Any], known: Iterable[Release]) -> tuple[list[Release], list[str]]:
    """Which of the known releases may have spelled a params document as it is, and what in it says so."""
    candidates, reasons = list(known), []

    def narrow(fits: Callable[[Release], bool], why: str) -> None:
        nonlocal candidates
        # What contradicts all that is known so far says nothing.
        if fitting := [release for release in candidates if fits(release)]:
            candidates = fitting
            reasons.append(why)

    if "trainer" in document:
        narrow(lambda release: release >= TRAINER, f"since {TRAINER} params stand under `trainer`")
    elif document.keys() & FLAT_SECTIONS:
        narrow(lambda release: release < TRAINER, f"before {TRAINER} params are flat")
        for changed, path in renames.respelled(document):
            narrow(lambda release, changed=changed: release < changed, f"before {changed} there is {path}")  # type: ignore[misc]
    return candidates, reasons


def oldest(document: Any, release: Release) -> Release:
    """The oldest release that may have spelled a document; `release` itself where nothing in it tells."""
    if not isinstance(document, Mapping):
        return release
    candidates, reasons = releases(document, (OLDEST, *span("2.0", str(NEWEST))))
    return candidates[0] if reasons else release
