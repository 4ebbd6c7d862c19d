"""Image encoders in a Cerebras section: `ViTModel`, and `vision_transformer` with its classifier."""

from __future__ import annotations

from typing import Any

from mmsimple.config import ClassifierConfig, ViTConfig
from mmsimple.sections.supported import CLASSIFIER, ENCODER, Section, below, initializer_range, require, shown


def read_encoder(section: Any, where: str, path: str) -> ViTConfig:
    """The encoder that a section at a path describes. Raises InputRefused, naming file and field."""
    return _encoder(ENCODER.complete(section, where, path), where, path)


def read_classifier(section: Section, where: str) -> ClassifierConfig:
    """An encoder with a classifier: one section describes both. Raises InputRefused, naming file and field."""
    full = CLASSIFIER.complete(section, where, "")
    return ClassifierConfig(_encoder(full, where, ""), full["num_classes"], full["use_bias_in_output"])


def _encoder(full: Section, where: str, path: str) -> ViTConfig:
    for name in ("hidden_size", "filter_size", "num_channels", "patch_size"):
        require(full[name] is not None, where, f"{below(path, name)} is null: how large is it?")
    hidden, heads = full["hidden_size"], full["num_heads"]
    at = below(path, "hidden_size")
    require(hidden % heads == 0, where, f"{at} is {hidden}, which is not a multiple of num_heads {heads}")
    check_layer(full["image_layer_idx"], full["num_hidden_layers"], where, below(path, "image_layer_idx"))
    image, patch = full["image_size"], full["patch_size"]
    fits = all(pixels % each == 0 for pixels, each in zip(image, patch, strict=True))
    require(fits, where, f"{below(path, 'image_size')} is {image}, which patch_size {patch} does not divide")
    return ViTConfig(
        hidden_size=hidden,
        num_hidden_layers=full["num_hidden_layers"],
        num_heads=heads,
        filter_size=full["filter_size"],
        image_size=(image[0], image[1]),
        patch_size=(patch[0], patch[1]),
        num_channels=full["num_channels"],
        nonlinearity=full["nonlinearity"],
        layer_norm_epsilon=float(full["layer_norm_epsilon"]),
        image_layer_idx=full["image_layer_idx"],
        # Null is as good as false, to CS too.
        use_post_embed_layer_norm=bool(full["use_post_embed_layer_norm"]),
        use_embed_proj_bias=full["use_embed_proj_bias"],
        use_projection_bias_in_attention=bool(full["use_projection_bias_in_attention"]),
        use_ffn_bias_in_attention=bool(full["use_ffn_bias_in_attention"]),
        use_ffn_bias=bool(full["use_ffn_bias"]),
        embedding_dropout_rate=float(full["embedding_dropout_rate"]),
        dropout_rate=float(full["dropout_rate"]),
        attention_dropout_rate=float(full["attention_dropout_rate"]),
        initializer_range=initializer_range(full, where, path),
    )


def check_layer(index: int | None, layers: int, where: str, path: str) -> None:
    """Raise InputRefused for a layer that is not there; CS would count on from the other end."""
    fits = index is None or -layers <= index < layers
    wanted = f"{-layers} to {layers - 1}, or null for all layers and the final norm"
    require(fits, where, f"{path} is {shown(index)}; num_hidden_layers {layers} has {wanted}")


def write_encoder(config: ViTConfig, name: str) -> dict[str, Any]:
    """The section of an encoder under one of its names; `read_encoder` reads it back."""
    return {
        "name": name,
        **{field: getattr(config, field) for field in sorted(ENCODER.read)},
        "image_size": list(config.image_size),
        "patch_size": list(config.patch_size),
        "attention_type": "scaled_dot_product",
        "norm_first": True,
        "position_embedding_type": "learned",
        "prepend_cls_token": True,
        "use_conv_patchified_embedding": True,
        "use_encoder_pooler_layer": False,
    }


def write_classifier(config: ClassifierConfig) -> dict[str, Any]:
    """The section of an encoder with a classifier."""
    section = write_encoder(config.encoder, "vision_transformer")
    return {**section, "num_classes": config.num_classes, "use_bias_in_output": config.use_bias_in_output}
