"""The multimodal model once more, one head, one query and one picture at a time, from weights and configs alone.

Nothing here batches, caches, masks or calls a module of `mmsimple`; rotary positions are multiplications of complex
numbers. Shape letters: S positions, H hidden, V vocabulary; P patches and E hidden of an encoder.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import sqrt

import torch
from torch import Tensor
from torch.nn import functional as F

from mmsimple.config import FeedForwardConfig, LlamaConfig, MultimodalConfig, ViTConfig
from mmsimple.model import Batch

Weights = Mapping[str, Tensor]

GATES = {"swiglu": "silu", "geglu": "gelu", "reglu": "relu"}


def below(weights: Weights, prefix: str) -> Weights:
    return {name.removeprefix(prefix): each for name, each in weights.items() if name.startswith(prefix)}


def linear(weights: Weights, name: str, x: Tensor) -> Tensor:
    out = x @ weights[f"{name}.weight"].T
    return out + weights[f"{name}.bias"] if f"{name}.bias" in weights else out


def activation(name: str | None, x: Tensor) -> Tensor:
    if name == "gelu":
        return x * (1 + torch.erf(x / sqrt(2))) / 2
    if name == "quick_gelu":
        return x / (1 + torch.exp(-1.702 * x))
    if name == "silu":
        return x / (1 + torch.exp(-x))
    if name == "relu":
        return x * (x > 0)
    assert name is None
    return x


def layer_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    centred = x - x.mean(-1, keepdim=True)
    normed = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt()
    return normed * weights[f"{name}.weight"] + weights[f"{name}.bias"]


def rms_norm(weights: Weights, name: str, x: Tensor, eps: float) -> Tensor:
    return x / (x.square().mean(-1, keepdim=True) + eps).sqrt() * weights[f"{name}.weight"]


def attention(weights: Weights, x: Tensor, heads: int, first_seen: list[int], last_seen: list[int]) -> Tensor:
    """Over [S, H]; query s sees keys from `first_seen[s]` to `last_seen[s]`."""
    return linear(weights, "proj_output_dense_layer", mix(*_heads(weights, x, heads), first_seen, last_seen))


def _heads(weights: Weights, x: Tensor, heads: int) -> tuple[Tensor, Tensor, Tensor]:
    """q [A, S, D], k and v [K, S, D]."""
    size = weights["proj_q_dense_layer.weight"].shape[0] // heads
    found = (linear(weights, f"proj_{name}_dense_layer", x) for name in ("q", "k", "v"))
    q, k, v = (each.reshape(len(x), -1, size).transpose(0, 1) for each in found)
    return q, k, v


def mix(q: Tensor, k: Tensor, v: Tensor, first_seen: list[int], last_seen: list[int]) -> Tensor:
    heads, length, size = q.shape
    out = torch.zeros(length, heads, size)
    for head in range(heads):
        group = head * len(k) // heads
        for query in range(length):
            seen = slice(first_seen[query], last_seen[query] + 1)
            scores = k[group, seen] @ q[head, query] / sqrt(size)
            out[query, head] = scores.softmax(0) @ v[group, seen]
    return out.flatten(1)


def encoder(weights: Weights, config: ViTConfig, image: Tensor) -> Tensor:
    """[C, height, width] -> [1 + P, E]."""
    height, width = config.patch_size
    inside = "embedding_layer."
    positions = weights[f"{inside}position_embeddings.weight"]
    projection = weights[f"{inside}linear_proj.weight"]
    tokens = [weights[f"{inside}cls_embedding"] + positions[-1]]
    for row in range(config.grid[0]):
        for column in range(config.grid[1]):
            patch = image[:, row * height : (row + 1) * height, column * width : (column + 1) * width]
            token = projection.flatten(1) @ patch.flatten() + positions[len(tokens) - 1]
            tokens.append(token + weights.get(f"{inside}linear_proj.bias", torch.zeros(())))
    x = torch.stack(tokens)
    if config.use_post_embed_layer_norm:
        x = layer_norm(weights, f"{inside}post_embed_ln", x, 1e-5)
    index, layers, eps = config.image_layer_idx, config.num_hidden_layers, config.layer_norm_epsilon
    for number in range(layers if index is None else index % layers + 1):
        layer = below(weights, f"encoder.transformer_encoder.layers.{number}.")
        everything = [0] * len(x), [len(x) - 1] * len(x)
        normed = layer_norm(layer, "norm1", x, eps)
        x = x + attention(below(layer, "self_attn."), normed, config.num_heads, *everything)
        inner = linear(layer, "ffn.ffn.0.linear_layer", layer_norm(layer, "norm2", x, eps))
        x = x + linear(layer, "ffn.ffn.1.linear_layer", activation(config.nonlinearity, inner))
    return x if index is not None else layer_norm(weights, "encoder.transformer_encoder.norm", x, eps)


def turned(heads: Tensor, config: LlamaConfig) -> Tensor:
    """q or k [A, S, D], each pair of entries as a complex number."""
    out = heads.clone()
    for position in range(heads.shape[1]):
        for pair in range(config.rotary_dim // 2):
            angle = position * config.rope_theta ** (-2 * pair / config.rotary_dim)
            x, y = heads[:, position, 2 * pair], heads[:, position, 2 * pair + 1]
            number = torch.complex(x, y) * torch.polar(torch.ones(()), torch.tensor(angle))
            out[:, position, 2 * pair], out[:, position, 2 * pair + 1] = number.real, number.imag
    return out


def decoder(weights: Weights, config: LlamaConfig, x: Tensor, modality: Tensor | None = None) -> Tensor:
    """Embeddings [S, H] -> logits [S, V]."""
    eps, length = config.layer_norm_epsilon, len(x)
    window = config.attention_sliding_window_length or length
    seen = [max(0, position - window + 1) for position in range(length)], list(range(length))
    for number in range(config.num_hidden_layers):
        layer = below(weights, f"transformer_decoder.layers.{number}.")
        inside = below(layer, "self_attn.")
        q, k, v = _heads(inside, rms_norm(layer, "norm1", x, eps), config.num_heads)
        mixed = mix(turned(q, config), turned(k, config), v, *seen)
        x = x + linear(inside, "proj_output_dense_layer", mixed)
        normed = rms_norm(layer, "norm3", x, eps)
        x = x + torch.stack([_gated(layer, config, token, _expert(modality, at)) for at, token in enumerate(normed)])
    return linear(weights, "lm_head", rms_norm(weights, "transformer_decoder.norm", x, eps))


def _expert(modality: Tensor | None, position: int) -> str:
    if modality is None:
        return ""
    return ".linear_img" if modality[position] == 1 else ".linear_text"


def _gated(layer: Weights, config: LlamaConfig, token: Tensor, expert: str) -> Tensor:
    gate = linear(layer, f"ffn.ffn.0.linear_layer_for_glu{expert}", token)
    up = linear(layer, f"ffn.ffn.0.linear_layer{expert}", token)
    return linear(layer, f"ffn.ffn.1.linear_layer{expert}", up * activation(GATES[config.nonlinearity], gate))


def projected(weights: Weights, config: FeedForwardConfig | None, features: Tensor) -> Tensor:
    if config is None:
        return features
    for number, name in enumerate(config.layers_activation):
        features = activation(name, linear(weights, f"ffn.{number}.linear_layer", features))
    return features


def image_features(weights: Weights, config: MultimodalConfig, image: Tensor) -> Tensor:
    """One picture's tokens: those of every encoder one after the other, projected."""
    joined = []
    for number, each in enumerate(config.image_models):
        inside = below(weights, f"image_model.image_model_list.{number}.")
        features = encoder(below(inside, "0."), each.encoder, image)
        assert each.projection is None or isinstance(each.projection, FeedForwardConfig)
        joined.append(projected(below(inside, "1."), each.projection, features[1 if config.select == "patch" else 0 :]))
    assert config.projection is None or isinstance(config.projection, FeedForwardConfig)
    return projected(below(weights, "image_model.projection."), config.projection, torch.cat(joined))


def multimodal(weights: Weights, config: MultimodalConfig, batch: Batch) -> Tensor:
    """Logits [B, S, V], one sample after the other."""
    out = []
    text = below(weights, "text_model.")
    for sample, ids in enumerate(batch.text_input_ids):
        embeddings = F.embedding(ids, text["embedding_layer.word_embeddings.weight"])
        if batch.image_data is not None and batch.image_data_loc is not None:
            for image, positions in zip(batch.image_data[sample], batch.image_data_loc[sample], strict=True):
                if all(position == len(ids) for position in positions):
                    continue
                for feature, position in zip(image_features(weights, config, image), positions, strict=True):
                    if position < len(ids):
                        embeddings[position] = feature
        modality = batch.token_modality_idx if config.text_model.static_dual_expert else None
        out.append(decoder(text, config.text_model, embeddings, None if modality is None else modality[sample]))
    return torch.stack(out)
