"""Multimodal models in a Cerebras section: `multimodal_simple`, and `llava`, the same model under other names."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from mmsimple.config import AveragePoolingConfig, ImageModelConfig, LossScaling, MultimodalConfig, Select
from mmsimple.sections.decoder import read_decoder, write_decoder
from mmsimple.sections.encoder import check_layer, read_encoder, write_encoder
from mmsimple.sections.llava_names import renamed_pattern
from mmsimple.sections.projection import check_grid, output_width, read_projection, write_projection
from mmsimple.sections.supported import LLAVA, MULTIMODAL, Section, require, shown

SELECTS: dict[str, Select] = {"patch": "patch", "cls_patch": "full", "full": "full"}
MODELS, SHARED = "image_model_list.image_models", "image_model_list.global_image_projection"


def read_multimodal(section: Section, where: str) -> MultimodalConfig:
    """CS `multimodal_simple`. Raises InputRefused, naming file and field."""
    full = MULTIMODAL.complete(section, where, "")
    images = full["image_model_list"]
    models = tuple(
        ImageModelConfig(
            read_encoder(each["image_encoder"], where, f"{MODELS}.{number}.image_encoder"),
            read_projection(each["projection_layer"], where, f"{MODELS}.{number}.projection_layer"),
        )
        for number, each in enumerate(images["image_models"])
    )
    scaling, weight = _loss(section, full, where)
    config = MultimodalConfig(
        image_models=models,
        text_model=read_decoder(full["text_model"], where, "text_model"),
        projection=read_projection(images["global_image_projection"], where, SHARED),
        select=_select(images["image_feature_select_mode"], where, "image_model_list.image_feature_select_mode"),
        freeze=tuple(full["freeze"] or ()),
        loss_scaling=scaling,
        loss_weight=weight,
    )
    _check_fit(config, where, SHARED)
    return config


def read_llava(section: Section, where: str) -> MultimodalConfig:
    """CS `llava`: one encoder, and beside it the layer that it stops at; patterns of names become those of our names.

    Raises InputRefused, naming file and field.
    """
    full = LLAVA.complete(section, where, "")
    encoder, name = read_encoder(full["image_model"], where, "image_model"), "image_feature_select_layer_idx"
    index, own = full[name], encoder.image_layer_idx
    check_layer(index, encoder.num_hidden_layers, where, name)
    require(own in (None, index), where, f"image_model.image_layer_idx is {shown(own)}, but {name} is {shown(index)}")
    projector = full["projector"] or {}
    text_projector = projector.get("text_model")
    require(text_projector is None, where, "projector.text_model: mmsimple projects images only, so it must be null")
    shared = "projector.image_model"
    scaling, weight = _loss(section, full, where)
    config = MultimodalConfig(
        image_models=(ImageModelConfig(replace(encoder, image_layer_idx=index)),),
        text_model=read_decoder(full["text_model"], where, "text_model"),
        projection=read_projection(projector.get("image_model"), where, shared),
        select=_select(full["image_feature_select_mode"], where, "image_feature_select_mode"),
        freeze=tuple(renamed_pattern(pattern, f"{where}: freeze") for pattern in full["freeze"] or ()),
        loss_scaling=scaling,
        loss_weight=weight,
    )
    _check_fit(config, where, shared)
    return config


def _loss(section: Section, full: Section, where: str) -> tuple[LossScaling, float]:
    """How the loss is scaled. A weight belongs to `batch_size` alone, and its class default may be 0."""
    scaling: LossScaling = full["loss_scaling"]
    if scaling == "num_tokens":
        weight = section.get("loss_weight", 1.0)
        require(weight == 1, where, f"loss_weight is {shown(weight)}: loss_scaling num_tokens takes no other than 1.0")
    else:
        weight = full["loss_weight"]
        said = "" if "loss_weight" in section else " by default"
        require(weight > 0, where, f"loss_weight is {shown(weight)}{said}, which trains nothing: it must be above 0")
    return scaling, float(weight)


def _select(mode: str, where: str, path: str) -> Select:
    require(mode in SELECTS, where, f"{path} is {shown(mode)}; mmsimple computes {' or '.join(SELECTS)}")
    return SELECTS[mode]


def _check_fit(config: MultimodalConfig, where: str, shared: str) -> None:
    """Raise InputRefused where a part does not take what the one before it gives; `shared` is the last projection."""
    models = config.image_models
    require(bool(models), where, f"{MODELS} is empty: there is no image encoder")
    inputs = {(each.encoder.num_channels, each.encoder.image_size) for each in models}
    problem = "the encoders see the same image, but differ in image_size or num_channels"
    require(len(inputs) == 1, where, f"{MODELS}: {problem}")
    widths = []
    for number, each in enumerate(models):
        path = f"{MODELS}.{number}.projection_layer"
        widths.append(output_width(each.projection, each.encoder.hidden_size, where, path))
        check_grid(each.projection, each.encoder.grid if config.select == "patch" else None, where, path)
    given = " and ".join(map(str, widths))
    require(len(set(widths)) == 1, where, f"{MODELS} give features of widths {shown(given)}, which cannot be joined")
    width = output_width(config.projection, widths[0], where, shared)
    is_grid = config.select == "patch" and len(models) == 1
    is_grid = is_grid and not isinstance(models[0].projection, AveragePoolingConfig)
    check_grid(config.projection, models[0].encoder.grid if is_grid else None, where, shared)
    hidden = config.text_model.hidden_size
    said = f"{shared}: image features come to width {shown(width)}, text_model.hidden_size {hidden}"
    require(width == hidden, where, said)


def write_multimodal(config: MultimodalConfig) -> dict[str, Any]:
    """The section of a multimodal model, as `multimodal_simple`; `read_multimodal` reads it back."""
    models = []
    for each in config.image_models:
        entry = {"image_encoder": write_encoder(each.encoder, "ViTModel")}
        if each.projection is not None:
            entry["projection_layer"] = write_projection(each.projection)
        models.append(entry)
    mode = "patch" if config.select == "patch" else "cls_patch"
    images: dict[str, Any] = {"image_feature_select_mode": mode, "image_models": models}
    if config.projection is not None:
        images["global_image_projection"] = write_projection(config.projection)
    section: dict[str, Any] = {
        "name": "multimodal_simple",
        "image_model_list": images,
        "text_model": write_decoder(config.text_model, "LlamaModel"),
        "loss_scaling": config.loss_scaling,
        "loss_weight": config.loss_weight,
    }
    return {**section, "freeze": list(config.freeze)} if config.freeze else section
