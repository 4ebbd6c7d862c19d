"""The decoder, CS `LlamaModel`: LLaMA, Vicuna and Mistral.

Shape letters: B samples, S positions, H hidden, V vocabulary.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmsimple.attention import EVERYTHING, Attention, Visibility
from mmsimple.cache import KeyValueCache, LayerCache
from mmsimple.config import LlamaConfig
from mmsimple.element_types import computed_in
from mmsimple.feed_forward import FeedForwardNetwork
from mmsimple.initialise import initialise
from mmsimple.norm import RMSNorm
from mmsimple.rotary import Rotation, rotation


class DecoderLayer(nn.Module):
    """Attention and a gated feed-forward network, each of a normalised input and added to it; CS has no norm2."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        size = config.hidden_size
        self.norm1 = RMSNorm(size, config.layer_norm_epsilon)
        self.self_attn = Attention(
            size,
            config.num_heads,
            config.num_kv_heads,
            projection_bias=config.use_projection_bias_in_attention,
            output_bias=config.use_ffn_bias_in_attention,
            dropout=config.attention_dropout_rate,
        )
        self.norm3 = RMSNorm(size, config.layer_norm_epsilon)
        self.ffn = FeedForwardNetwork(
            (size, config.filter_size, size),
            (config.nonlinearity, None),
            bias=config.use_ffn_bias,
            # CS decoders drop nothing between the two layers.
            dropouts=(0.0, config.dropout_rate),
            static_dual_expert=config.static_dual_expert,
        )
        self.dropout = nn.Dropout(config.dropout_rate)

    def forward(
        self,
        x: Tensor,
        visible: Visibility,
        turns: Rotation,
        modality: Tensor | None,
        cache: LayerCache | None,
    ) -> Tensor:
        x = x + self.dropout(self.self_attn(self.norm1(x), visible, turns, cache))
        out: Tensor = x + self.ffn(self.norm3(x), modality)
        return out


class TransformerDecoder(nn.Module):
    """All layers and the final norm."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.layer_norm_epsilon)

    def forward(
        self,
        x: Tensor,
        visible: Visibility,
        turns: Rotation,
        modality: Tensor | None,
        cache: KeyValueCache | None,
    ) -> Tensor:
        caches = [None] * len(self.layers) if cache is None else cache.layers
        for layer, each in zip(self.layers, caches, strict=True):
            x = layer(x, visible, turns, modality, each)
        out: Tensor = self.norm(x)
        return out


class LlamaModel(nn.Module):
    """A decoder with its embedding and its output head."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        words = nn.Embedding(config.vocab_size, config.hidden_size)
        self.embedding_layer = nn.ModuleDict({"word_embeddings": words})
        self.dropout = nn.Dropout(config.embedding_dropout_rate)
        self.transformer_decoder = TransformerDecoder(config)
        # CS keeps the final norm under a second name, in every checkpoint.
        self.ln_f = self.transformer_decoder.norm
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, config.use_bias_in_output)
        if config.share_embedding_weights:
            self.lm_head.weight = words.weight
        initialise(self, config.initializer_range)

    def embed(self, token_ids: Tensor) -> Tensor:
        """[B, S] -> [B, S, H]."""
        out: Tensor = self.embedding_layer["word_embeddings"](token_ids)
        return out

    def decode(self, embeddings: Tensor, modality: Tensor | None = None, cache: KeyValueCache | None = None) -> Tensor:
        """[B, S, H] -> [B, S, H], normalised and ready for the head, in its element type.

        `modality` [B, S] is 1 at image tokens; only a decoder with dual experts reads it, and it must. With a cache,
        these are the positions after those in it.
        """
        if self.config.static_dual_expert and modality is None:
            raise ValueError("static_dual_expert chooses an expert per token: token_modality_idx is missing")
        past = 0 if cache is None else cache.length
        positions = torch.arange(past, past + embeddings.shape[1], device=embeddings.device)
        x = self.dropout(embeddings.to(computed_in(self.transformer_decoder)))
        turns = rotation(self.config, positions, x.dtype)
        out: Tensor = self.transformer_decoder(x, self._visible(positions, past), turns, modality, cache)
        return out.to(self.lm_head.weight.dtype)

    def forward(self, token_ids: Tensor, modality: Tensor | None = None) -> Tensor:
        """[B, S] -> logits [B, S, V]."""
        logits: Tensor = self.lm_head(self.decode(self.embed(token_ids), modality))
        return logits

    def _visible(self, positions: Tensor, past: int) -> Visibility:
        """Every token sees itself and those before it, or the last so many of them.

        Padding on the right needs no mask: no real token sees it.
        """
        window = self.config.attention_sliding_window_length
        length = past + len(positions)
        if window is None or length <= window:
            if past == 0:
                return Visibility(is_causal=True)
            if len(positions) == 1:
                return EVERYTHING
        distance = positions[:, None] - torch.arange(length, device=positions.device)  # [queries, keys]
        seen = distance >= 0
        return Visibility(mask=seen if window is None else seen & (distance < window))
