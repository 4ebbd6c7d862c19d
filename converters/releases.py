"""What Cerebras releases spell otherwise, model by model, and the releases that each model has.

The tensors have had the same names in every release; only the config of a model changed its words.
"""

from __future__ import annotations

from typing import Any

from mmconvert.paths import get, put
from mmconvert.releases import Release, span
from mmconvert.spec import Config
from mmconvert.spellings import Change

SINCE_2_1 = span("2.1", "2.10")
SINCE_2_2 = span("2.2", "2.10")
SINCE_2_3 = span("2.3", "2.10")
SINCE_1_9 = (Release(1, 9), Release(2, 0), *SINCE_2_1)


def _without(config: Config, *names: str) -> dict[str, Any]:
    return {name: value for name, value in config.items() if name not in names}


def named(name: str) -> Change:
    """Since 2.4 every model section must say which model it is of."""
    return Change(
        Release(2, 4),
        "a model section has a name",
        newer=lambda config: {"name": name, **config},
        older=lambda config: _without(config, "name"),
    )


def _norm_type(config: Config) -> Config:
    if "use_rms_norm" not in config:
        return config
    return {"norm_type": "rmsnorm" if config["use_rms_norm"] else "layernorm", **_without(config, "use_rms_norm")}


def _use_rms_norm(config: Config) -> Config:
    if config.get("norm_type") not in ("rmsnorm", "layernorm"):
        return config
    return {**_without(config, "norm_type"), "use_rms_norm": config["norm_type"] == "rmsnorm"}


NORM_TYPE = Change(Release(2, 0), "use_rms_norm is norm_type", _norm_type, _use_rms_norm)


def _position_embedding_type(config: Config) -> Config:
    """`use_position_embedding` said no more than that there is a type; false, that there is none."""
    if config.get("use_position_embedding", True):
        return _without(config, "use_position_embedding")
    return {**_without(config, "use_position_embedding"), "position_embedding_type": None}


POSITION_EMBEDDING = Change(
    Release(2, 0), "use_position_embedding is gone", _position_embedding_type, older=lambda config: config
)


IMAGE_MODELS = "image_model_list.image_models"


def _each_image_model(config: Config, change: Any) -> Config:
    models = get(config, IMAGE_MODELS)
    changed: Config = (
        put(config, IMAGE_MODELS, [change(each) for each in models]) if isinstance(models, list) else config
    )
    return changed


def _image_encoder(entry: Any) -> Any:
    """`image_model: [encoder, projection]`, the projection optional, as `image_encoder` and `projection_layer`."""
    parts = entry.get("image_model") if isinstance(entry, dict) else None
    if not isinstance(parts, list) or len(parts) not in (1, 2):
        return entry
    rest = {**_without(entry, "image_model"), "image_encoder": parts[0]}
    return rest if len(parts) == 1 else {**rest, "projection_layer": parts[1]}


def _image_model(entry: Any) -> Any:
    if not isinstance(entry, dict) or "image_encoder" not in entry:
        return entry
    parts = [entry["image_encoder"], *filter(None, [entry.get("projection_layer")])]
    return {**_without(entry, "image_encoder", "projection_layer"), "image_model": parts}


IMAGE_ENCODER = Change(
    Release(2, 4),
    "an image model's encoder has a field of its own",
    newer=lambda config: _each_image_model(config, _image_encoder),
    older=lambda config: _each_image_model(config, _image_model),
)
