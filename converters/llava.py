"""LLaVA against CS `llava`: one image encoder, one projector, one decoder, side by side."""

from __future__ import annotations

from mmconvert.converter import Format
from mmconvert.rules import const
from mmconvert.spec import B, Config

from .decoder import LOSS
from .multimodal import Multimodal
from .partners import PARTNERS
from .releases import SINCE_2_2, named

LLAVA = Multimodal(
    encoder="image_model",
    encoder_key="image_model.",
    projection="projector.image_model",
    projection_key="projector_image_model",
    layer="image_feature_select_layer_idx",
    mode="image_feature_select_mode",
    freeze="^image_model",
)


def is_llava(config: Config) -> bool:
    return "image_model" in config and "text_model" in config


CEREBRAS = Format(
    "cs", {"": is_llava}, aliases=(("model.", ""),), changes=(named("llava"),), of_training=("freeze", *LOSS)
)
# The position of the first image token: after the one that begins the text.
START = const(B, "image_start_idx", 1)

CONVERTERS = tuple(
    LLAVA.converters(
        "llava", "llava", CEREBRAS, PARTNERS, LLAVA.space("cs-llava"), SINCE_2_2, more=[START], by_name=True
    )
)
