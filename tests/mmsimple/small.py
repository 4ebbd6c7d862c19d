"""Small models whose every weight matters, and how far apart two outputs are.

Fresh weights hide mistakes: biases are zero, norms do nothing, and attention hardly looks anywhere. Here all of them
are drawn, so large that each has its share in what comes out.
"""

from __future__ import annotations

from typing import TypeVar

import torch
from torch import Tensor, nn

from mmsimple.config import FeedForwardConfig, ImageModelConfig, LlamaConfig, MultimodalConfig, ViTConfig

M = TypeVar("M", bound=nn.Module)

# How far float32 may be off in another order of the same sums, for values of about 1.
FLOAT32 = 2e-5
# bfloat16 has 8 significant bits, so that each of the dozens of steps to a logit rounds by up to 2^-9 of its value, and
# what is summed in another order rounds otherwise. A few such units remain in the end; what is wrong is off by 1.
BFLOAT16 = 8 * 2**-8

VIT = ViTConfig(
    hidden_size=32,
    num_hidden_layers=3,
    num_heads=4,
    filter_size=56,
    image_size=(28, 28),
    patch_size=(14, 14),
    image_layer_idx=-2,
    use_post_embed_layer_norm=True,
)
DECODER = LlamaConfig(
    vocab_size=101,
    hidden_size=48,
    num_hidden_layers=2,
    num_heads=4,
    num_kv_heads=2,
    filter_size=80,
    rotary_dim=12,
    max_position_embeddings=64,
    share_embedding_weights=False,
)
MULTIMODAL = MultimodalConfig(
    image_models=(ImageModelConfig(VIT),),
    text_model=DECODER,
    projection=FeedForwardConfig(32, (48, 48), ("gelu", None), (0.0, 0.0), use_bias=True),
)


def drawn(module: M, seed: int = 0) -> M:
    """The module in eval mode, with random weights: matrices that keep a vector's length, norms near what they were."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(noise * parameter[0].numel() ** -0.5)
            else:
                is_norm = bool((parameter == 1).all())
                parameter.copy_(0.2 * noise + is_norm)
    return module.eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def token_ids(samples: int, length: int, vocab_size: int = DECODER.vocab_size, seed: int = 0) -> Tensor:
    return torch.randint(vocab_size, (samples, length), generator=torch.Generator().manual_seed(seed))


def apart(ours: Tensor, theirs: Tensor) -> float:
    """The largest difference, in units of the largest value that is at least 1."""
    assert ours.shape == theirs.shape
    assert theirs.isfinite().all()
    return float((ours.float() - theirs.float()).abs().max() / max(1.0, float(theirs.abs().max())))
