"""LLaVA against CS `multimodal_simple`, whose image encoders stand in a list."""

from __future__ import annotations

from collections.abc import Mapping

from mmconvert.converter import Format
from mmconvert.spec import Config

from .decoder import LOSS
from .multimodal import Multimodal
from .partners import PARTNERS
from .releases import IMAGE_ENCODER, SINCE_2_3, named

MMSIMPLE = Multimodal(
    encoder="image_model_list.image_models.{e}.image_encoder",
    encoder_key="image_model.image_model_list.{e}.0.",
    projection="image_model_list.global_image_projection",
    projection_key="image_model.projection",
    layer="image_model_list.image_models.0.image_encoder.image_layer_idx",
    mode="image_model_list.image_feature_select_mode",
    freeze="^image_model.image_model_list",
    own_projection=("image_model_list.image_models.{e}.projection_layer", "image_model.image_model_list.{e}.1."),
)


def is_mmsimple(config: Config) -> bool:
    models = config.get("image_model_list")
    return isinstance(models, Mapping) and "text_model" in config


CEREBRAS = Format(
    "cs",
    {"": is_mmsimple},
    aliases=(("model.", ""),),
    changes=(IMAGE_ENCODER, named("multimodal_simple")),
    of_training=("freeze", *LOSS),
)

CONVERTERS = tuple(
    MMSIMPLE.converters(
        "mmsimple-llava", "multimodal_simple", CEREBRAS, PARTNERS, MMSIMPLE.space("cs-mmsimple"), SINCE_2_3
    )
)
