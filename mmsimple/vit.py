"""The image encoder, CS `ViTModel`: CLIP's vision tower.

Shape letters: N images, C channels, P patches, E hidden.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsimple.attention import Attention
from mmsimple.config import ClassifierConfig, ViTConfig
from mmsimple.element_types import computed_in
from mmsimple.feed_forward import FeedForwardNetwork
from mmsimple.initialise import initialise, normal_, xavier
from mmsimple.norm import LayerNorm

# CS gives the first norm no epsilon of its own to set.
POST_EMBED_EPSILON = 1e-5


class PatchEmbedding(nn.Module):
    """Patches and a class token in front of them, with learned positions; the class token's is the table's last row."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        size, patch = config.hidden_size, config.patch_size
        self.linear_proj = nn.Conv2d(config.num_channels, size, patch, stride=patch, bias=config.use_embed_proj_bias)
        self.cls_embedding = nn.Parameter(torch.zeros(size))
        self.position_embeddings = nn.Embedding(config.num_patches + 1, size)
        self.post_embed_ln = (
            LayerNorm(size, eps=POST_EMBED_EPSILON) if config.use_post_embed_layer_norm else nn.Identity()
        )
        self.dropout = nn.Dropout(config.embedding_dropout_rate)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, 1 + P, E]."""
        dtype = self.linear_proj.weight.dtype
        patches = self.linear_proj(images.to(dtype)).flatten(2).transpose(1, 2)  # [N, P, E], row by row
        token = self.cls_embedding.expand(len(images), 1, -1)
        embedded = torch.cat((token, patches), dim=1) + self.position_embeddings.weight.roll(1, dims=0)
        out: Tensor = self.post_embed_ln(self.dropout(embedded.to(dtype)))
        return out


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each of a normalised input and added to it."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm1 = LayerNorm(size, eps=config.layer_norm_epsilon)
        self.self_attn = Attention(
            size,
            config.num_heads,
            config.num_heads,
            projection_bias=config.use_projection_bias_in_attention,
            output_bias=config.use_ffn_bias_in_attention,
            dropout=config.attention_dropout_rate,
        )
        self.norm2 = LayerNorm(size, eps=config.layer_norm_epsilon)
        self.ffn = FeedForwardNetwork(
            (size, config.filter_size, size),
            (config.nonlinearity, None),
            bias=config.use_ffn_bias,
            dropouts=(config.dropout_rate, config.dropout_rate),
        )
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm1(x)))
        out: Tensor = x + self.ffn(self.norm2(x))
        return out


class TransformerEncoder(nn.Module):
    """The layers up to the wanted one, and the final norm only where all of them are wanted."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.last_layer = config.last_layer
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = LayerNorm(config.hidden_size, eps=config.layer_norm_epsilon)

    def forward(self, x: Tensor) -> Tensor:
        wanted = self.layers if self.last_layer is None else self.layers[: self.last_layer + 1]
        for layer in wanted:
            x = layer(x)
        return self.norm(x) if self.last_layer is None else x


class ViTModel(nn.Module):
    """An image encoder; see `ViTConfig.image_layer_idx` for what it gives."""

    def __init__(self, config: ViTConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding_layer = PatchEmbedding(config)
        self.encoder = nn.ModuleDict({"transformer_encoder": TransformerEncoder(config)})
        initialise(self, config.initializer_range)
        normal_(self.embedding_layer.cls_embedding, config.initializer_range)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, 1 + P, E], the class token in front."""
        out: Tensor = self.encoder["transformer_encoder"](self.embedding_layer(images))
        return out


class Classifier(nn.Module):
    """One linear layer, under the name that CS gives it: `classifier.ffn.0.linear_layer`."""

    def __init__(self, inputs: int, classes: int, bias: bool) -> None:
        super().__init__()
        self.classifier = xavier(FeedForwardNetwork((inputs, classes), (None,), bias=bias))

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.classifier(x.to(computed_in(self)))
        return out


class ViTClassifier(nn.Module):
    """A vision transformer with a linear layer on its class token, CS `vision_transformer`.

    With CLIP's weights the layer is its visual projection, and the output what CLIP calls image embeddings.
    """

    def __init__(self, config: ClassifierConfig) -> None:
        super().__init__()
        self.config = config
        self.vit_model = ViTModel(config.encoder)
        self.classifier = Classifier(config.encoder.hidden_size, config.num_classes, config.use_bias_in_output)

    def forward(self, images: Tensor) -> Tensor:
        """[N, C, height, width] -> [N, classes]."""
        out: Tensor = self.classifier(self.vit_model(images)[:, 0])
        return out
