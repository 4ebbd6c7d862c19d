"""The names of CS `llava`'s parameters, and patterns of them, as those of the same model here."""

from __future__ import annotations

import re

from mmconvert.errors import InputRefused
from mmconvert.excerpt import excerpt
from mmsimple.patterns import compiled

PROJECTOR = "projector_image_model"
OURS = {"image_model": "image_model.image_model_list.0.0", PROJECTOR: "image_model.projection"}
# How a pattern that names a part begins; `projector` is what a config calls it.
BEGINNING = re.compile(r"\^(image_model|projector_image_model|projector|text_model)(?=\\?\.|\Z)")
# What begins otherwise must find these under both names or under neither.
EXAMPLES = (
    "image_model.embedding_layer.cls_embedding",
    "image_model.encoder.transformer_encoder.layers.1.norm1.weight",
    "projector_image_model.ffn.1.linear_layer.bias",
)


def renamed(name: str) -> str:
    """A parameter's name here."""
    part, dot, rest = name.partition(".")
    return f"{OURS.get(part, part)}{dot}{rest}"


def renamed_pattern(pattern: str, where: str) -> str:
    """A pattern that finds under our names what the given one finds under those of CS.

    Raises InputRefused, beginning with `where`, for one that another beginning does not turn into that.
    """
    begins = BEGINNING.match(pattern)
    theirs = ours = rest = pattern
    if begins:
        part, rest = PROJECTOR if begins[1] == "projector" else begins[1], pattern[begins.end() :]
        theirs, ours = f"^{part}{rest}", f"^{re.escape(OURS.get(part, part))}{rest}"
    if "image_model" in rest or "projector" in rest or _differ(compiled(theirs, where), compiled(ours, where)):
        raise InputRefused(
            f"{where}: '{excerpt(pattern)}' finds something else under mmsimple's names; begin it with ^image_model, "
            "^projector_image_model or ^text_model and a dot, or name only what is inside of these"
        )
    return ours


def _differ(theirs: re.Pattern[str], ours: re.Pattern[str]) -> bool:
    return any(bool(theirs.search(name)) != bool(ours.search(renamed(name))) for name in EXAMPLES)
