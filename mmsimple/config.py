"""What a model is made of: frozen descriptions of its parts, under the names that Cerebras (CS) configs give them.

`mmsimple.sections` reads them from the model section of a params file and writes them back. Nothing here needs torch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

# Of an encoder's output, what becomes image features: the patches, or all of it with the class token in front.
Select = Literal["patch", "full"]
LossScaling = Literal["num_tokens", "batch_size"]
# What a layer may be followed by: functions whose names say exactly what they compute, see `feed_forward.py`.
ACTIVATIONS = ("gelu", "quick_gelu", "relu", "silu", "tanh", "sigmoid")
# YaRN leaves pairs that turn so often within the original length as they are, and stretches those that turn so seldom.
BETA_FAST, BETA_SLOW = 32, 1


@dataclass(frozen=True)
class ViTConfig:
    """A vision transformer, CS `ViTModel`.

    `image_size` and `patch_size` are (height, width) in pixels. `image_layer_idx` is the last layer that runs, negative
    from the end, without the final norm; None for all of them and the norm.
    """

    hidden_size: int
    num_hidden_layers: int
    num_heads: int
    filter_size: int
    image_size: tuple[int, int]
    patch_size: tuple[int, int]
    num_channels: int = 3
    nonlinearity: str = "gelu"
    layer_norm_epsilon: float = 1e-5
    image_layer_idx: int | None = None
    use_post_embed_layer_norm: bool = False
    use_embed_proj_bias: bool = True
    use_projection_bias_in_attention: bool = True
    use_ffn_bias_in_attention: bool = True
    use_ffn_bias: bool = True
    embedding_dropout_rate: float = 0.0
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.0
    initializer_range: float = 0.02

    @property
    def grid(self) -> tuple[int, int]:
        """Patches in a column and in a row of an image."""
        return self.image_size[0] // self.patch_size[0], self.image_size[1] // self.patch_size[1]

    @property
    def num_patches(self) -> int:
        return self.grid[0] * self.grid[1]

    @property
    def last_layer(self) -> int | None:
        """`image_layer_idx` counted from the first layer on; CS takes it modulo the number of layers."""
        return None if self.image_layer_idx is None else self.image_layer_idx % self.num_hidden_layers


@dataclass(frozen=True)
class LlamaConfig:
    """A decoder, CS `LlamaModel`: what LLaMA, Vicuna and Mistral are.

    `num_kv_heads` is what CS calls `extra_attention_params.num_kv_groups`. `rotary_dim` entries of each head are
    rotated. `attention_sliding_window_length` counts the token itself; None for all tokens before it.
    """

    vocab_size: int
    hidden_size: int
    num_hidden_layers: int
    num_heads: int
    num_kv_heads: int
    filter_size: int
    rotary_dim: int
    max_position_embeddings: int
    nonlinearity: str = "swiglu"
    layer_norm_epsilon: float = 1e-5
    rope_theta: float = 10000.0
    pos_scaling_factor: float = 1.0
    pos_scaling_type: str = "linear"
    pos_scaling_extra_args: dict[str, Any] = field(default_factory=dict)
    attention_sliding_window_length: int | None = None
    share_embedding_weights: bool = True
    static_dual_expert: bool = False
    use_projection_bias_in_attention: bool = True
    use_ffn_bias_in_attention: bool = True
    use_ffn_bias: bool = True
    use_bias_in_output: bool = False
    embedding_dropout_rate: float = 0.1
    dropout_rate: float = 0.1
    attention_dropout_rate: float = 0.1
    initializer_range: float = 0.02


@dataclass(frozen=True)
class FeedForwardConfig:
    """A stack of linear layers, CS `FeedForwardNetwork`; an activation of None passes on what it gets."""

    input_unit: int
    layers_units: tuple[int, ...]
    layers_activation: tuple[str | None, ...]
    layers_dropout_rates: tuple[float, ...]
    use_bias: bool = False

    @property
    def output_unit(self) -> int:
        return self.layers_units[-1]


@dataclass(frozen=True)
class IdentityConfig:
    """No projection at all: features go on as they are."""


@dataclass(frozen=True)
class AveragePoolingConfig:
    """MM1's projector: the grid of patches, averaged down to `grid` (rows, columns), then one linear layer."""

    input_unit: int
    output_unit: int
    grid: tuple[int, int]
    use_bias: bool = True


ProjectorConfig: TypeAlias = FeedForwardConfig | IdentityConfig | AveragePoolingConfig


@dataclass(frozen=True)
class ImageModelConfig:
    """One image encoder, and the projection that is its own, if it has one."""

    encoder: ViTConfig
    projection: ProjectorConfig | None = None


@dataclass(frozen=True)
class MultimodalConfig:
    """Image encoders, a projector and a decoder, CS `multimodal_simple`; `freeze` are patterns of parameter names."""

    image_models: tuple[ImageModelConfig, ...]
    text_model: LlamaConfig
    projection: ProjectorConfig | None = None
    select: Select = "patch"
    freeze: tuple[str, ...] = ()
    loss_scaling: LossScaling = "num_tokens"
    loss_weight: float = 1.0


@dataclass(frozen=True)
class ClassifierConfig:
    """A vision transformer with a linear layer on its class token, CS `vision_transformer`: a CLIP tower by itself."""

    encoder: ViTConfig
    num_classes: int
    use_bias_in_output: bool = True


ModelConfig: TypeAlias = MultimodalConfig | LlamaConfig | ClassifierConfig | ViTConfig
