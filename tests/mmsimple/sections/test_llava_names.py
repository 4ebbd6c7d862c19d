"""Patterns in a CS `llava` find the same parameters here, where they have other names."""

from __future__ import annotations

import re

import pytest
import torch

from mmconvert.errors import InputRefused
from mmsimple.model import MultimodalModel
from mmsimple.sections.llava_names import renamed, renamed_pattern
from tests.mmsimple.small import MULTIMODAL

ENCODER, PROJECTOR = r"^image_model\.image_model_list\.0\.0", r"^image_model\.projection"


@pytest.fixture(scope="module")
def names() -> dict[str, str]:
    """The parameters of a small model by their names in a CS `llava`."""
    with torch.device("meta"):
        model = MultimodalModel(MULTIMODAL)
    ours = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    moved = (
        ("image_model.image_model_list.0.0.", "image_model."),
        ("image_model.projection.", "projector_image_model."),
    )

    def theirs(name: str) -> str:
        return next((new + name.removeprefix(old) for old, new in moved if name.startswith(old)), name)

    return {theirs(name): name for name in ours}


def test_names_are_renamed_part_by_part(names: dict[str, str]) -> None:
    assert {renamed(name): name for name in names} == {ours: theirs for theirs, ours in names.items()}
    assert len({*names.values()} - {*names}) == sum("image_model" in name for name in names)


@pytest.mark.parametrize(
    ("pattern", "ours"),
    [
        ("^image_model", ENCODER),
        (r"^image_model\.", rf"{ENCODER}\."),
        ("^image_model.encoder.*norm", f"{ENCODER}.encoder.*norm"),
        (r"^image_model\.(?:embedding_layer|encoder)", rf"{ENCODER}\.(?:embedding_layer|encoder)"),
        ("^projector_image_model", PROJECTOR),
        ("^projector_image_model.ffn.0", f"{PROJECTOR}.ffn.0"),
        ("^projector", PROJECTOR),
        (r"^projector\.ffn", rf"{PROJECTOR}\.ffn"),
        ("^text_model", "^text_model"),
        (r"^text_model\.lm_head|ln_f", r"^text_model\.lm_head|ln_f"),
        *(
            (same, same)
            for same in ("text_model", r"layers\.1\.", "bias$", r"\.norm[13]\.", "^.*norm", "lm_head", "model")
        ),
    ],
)
def test_a_pattern_finds_the_same_parameters(pattern: str, ours: str, names: dict[str, str]) -> None:
    assert renamed_pattern(pattern, "freeze") == ours
    meant = re.sub(r"^\^projector(?!_)", "^projector_image_model", pattern)
    found = {renamed(name) for name in names if re.search(meant, name)}
    assert found
    assert found == {name for name in names.values() if re.search(ours, name)}


@pytest.mark.parametrize(
    "pattern",
    [
        # What has none of the beginnings that can be another.
        *(
            "image_model",
            "projector",
            "image_model.encoder",
            "^image_models?",
            "^image_model_list",
            "^(image_model|text)",
        ),
        *("^text_model|^image_model", "^image_model.encoder|^projector", "^projector_text", "x|projector_image_model"),
        # And what finds the projector too, or nothing any more.
        *("^image", "^i", "projection", "^proj", r"^\w+\.encoder", r"model\.enc", r"\.0\.0\.", "^text_model.ln|^image"),
    ],
)
def test_a_pattern_that_would_find_others_is_refused(pattern: str) -> None:
    with pytest.raises(InputRefused) as refused:
        renamed_pattern(pattern, "x.yaml: freeze")
    assert str(refused.value).startswith(f"x.yaml: freeze: '{pattern}' finds something else under mmsimple's names; ")


def test_a_pattern_that_may_run_away_is_not_tried() -> None:
    with pytest.raises(InputRefused, match=r"^freeze: '\^text_model.\(.\*\)\*' may search for ever"):
        renamed_pattern("^text_model.(.*)*", "freeze")
