"""Sections of small models, to be changed, and what is refused of them."""

from __future__ import annotations

from typing import Any

import pytest

from mmconvert.errors import InputRefused
from mmconvert.paths import put, without
from mmsimple import sections
from mmsimple.config import ClassifierConfig, FeedForwardConfig
from mmsimple.sections.projection import write_projection
from tests.mmsimple.small import DECODER, MULTIMODAL, VIT

ENCODER: dict[str, Any] = sections.write(VIT)[1]
CLASSIFIER: dict[str, Any] = sections.write(ClassifierConfig(VIT, 24, False))[1]
LLAMA: dict[str, Any] = sections.write(DECODER)[1]
TEXT: dict[str, Any] = {**LLAMA, "name": "LlamaModel"}
MLP: dict[str, Any] = write_projection(FeedForwardConfig(32, (48, 48), ("gelu", None), (0.0, 0.0)))
MMSIMPLE: dict[str, Any] = sections.write(MULTIMODAL)[1]
LLAVA: dict[str, Any] = {
    "name": "llava",
    "image_model": without(ENCODER, "image_layer_idx"),
    "projector": {"image_model": MLP},
    "text_model": TEXT,
}
FILE = "params.yaml"


def changed(section: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """The section with other values; a double underscore stands for the dot of a path."""
    for name, value in fields.items():
        section = put(section, name.replace("__", "."), value)
    return section


def assert_refused(model: str, section: dict[str, Any], *said: str) -> None:
    """One line names the file and says all of these."""
    with pytest.raises(InputRefused) as caught:
        sections.read(model, section, FILE)
    message = str(caught.value)
    assert message.startswith(f"{FILE}: ")
    assert "\n" not in message
    for each in said:
        assert each in message, message
