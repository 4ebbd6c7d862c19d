"""One CLIP tower of a CS multimodal model: `CLIPVisionModel` against a `ViTModel`, alone or inside a list of several.

The tower of a multimodal checkpoint is taken out with `--encoder`, which says which one.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmconvert.configs import ConfigTable, Space
from mmconvert.converter import Converter, Format, Place
from mmconvert.paths import get
from mmconvert.rules import ANYTHING, const, ignored
from mmconvert.schema import load
from mmconvert.spec import A, B, Config, mount

from . import clip, usage
from .llava_names import IMAGE
from .mmsimple import MMSIMPLE
from .releases import SINCE_2_2

HF, CS = A, B


def encoders(config: Config) -> Sequence[Place]:
    """Where the encoders of a `multimodal_simple` or a `llava` stand; only the first may have assets."""
    models = get(config, "image_model_list.image_models")
    if isinstance(models, list):
        return [
            Place(
                MMSIMPLE.encoder.replace("{e}", str(number)),
                MMSIMPLE.encoder_key.replace("{e}", str(number)),
                IMAGE if number == 0 else "",
            )
            for number in range(len(models))
        ]
    return [Place(IMAGE, f"{IMAGE}.", IMAGE)] if "text_model" in config and IMAGE in config else []


def is_encoder(config: Config) -> bool:
    return config.get("name") in ("ViTModel", "vit")


CONVERTERS = (
    Converter(
        model="clip-encoder",
        a=Format(
            "hf",
            {"": clip.is_clip},
            aliases=(("", "vision_model."),),
            dtype_fields=("torch_dtype",),
            usage=usage.tower,
            documents=clip.documents,
            by_name=True,
        ),
        b=Format("cs", {"": is_encoder}, aliases=(("model.", ""),), inside=encoders),
        tables=(
            mount(clip.VISION, part="vision", a="vision_model."),
            mount(clip.TEXT_HALF, part="vision"),
            mount(clip.NO_CLASSIFIER, part="vision"),
        ),
        configs=ConfigTable(
            rows=(
                *clip.VISION_FIELDS,
                const(CS, "name", "ViTModel", also=["vit"]),
                const(HF, "architectures", ["CLIPVisionModel"], also=[ANYTHING]),
                ignored(
                    CS, "image_layer_idx", why="which layer a multimodal model reads; the tower itself has them all"
                ),
            ),
            a=clip.SPACE,
            b=Space(lambda _: {"": load("cs-image-encoder")}),
        ),
        b_releases=SINCE_2_2,
        note="one CLIP tower of a multimodal model (--encoder)",
        advice=clip.advice,
    ),
)
