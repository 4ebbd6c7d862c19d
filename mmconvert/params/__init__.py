"""Params files, the YAML documents that configure a training run, from one CS release to another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.params import moves, renames
from mmconvert.releases import TRAINER, Release
from mmconvert.remark import Remark


def convert(params: Mapping[str, Any], source: Release, target: Release) -> tuple[dict[str, Any], tuple[Remark, ...]]:
    """A params document of release `source` as `target` spells it, and a remark for every field that was dropped.

    Up to 2.2 a document has flat sections (`model`, `optimizer`, `runconfig`, `train_input`, `eval_input`); from 2.3
    on all of it stands under `trainer`. A flat document of 2.3 or later stays flat unless it goes below; one under
    `trainer` is of 2.3 or later, whatever `source` says. What the model's own section holds is not looked into, but
    for the few fields that 2.3 moved out of it.

    Going there and back changes nothing, except that a value with several spellings comes back in the commonest one.
    Raises ValueError, naming the path, for a document that is not shaped as expected.
    """
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
