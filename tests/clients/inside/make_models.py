"""Save small random models as this transformers saves them. Runs in a client's environment.

Usage: python make_models.py FOLDER. Writes FOLDER/NAME for each of the models below.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

import torch

VISION: dict[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 24,
}
TEXT: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "pad_token_id": None,
    "tie_word_embeddings": False,
    # Weights as small as they usually are at first make logits in which a fault hardly shows.
    "initializer_range": 0.2,
}
# name: class, class of its config, fields, how it is saved
MODELS: dict[str, tuple[str, str, dict[str, Any], dict[str, Any]]] = {
    "two/image_model": ("CLIPVisionModel", "CLIPVisionConfig", VISION, {}),
    "two/text_model": ("LlamaForCausalLM", "LlamaConfig", TEXT, {}),
    "clip-projection": ("CLIPVisionModelWithProjection", "CLIPVisionConfig", VISION, {}),
    "llama-one": ("LlamaForCausalLM", "LlamaConfig", TEXT, {}),
    "llama-sharded": ("LlamaForCausalLM", "LlamaConfig", {**TEXT, "rope_theta": 5e5}, {"max_shard_size": "90KB"}),
    "llama-tied": ("LlamaForCausalLM", "LlamaConfig", {**TEXT, "tie_word_embeddings": True}, {}),
    # The window is shorter than the text that the models are given.
    "mistral-sliding": ("MistralForCausalLM", "MistralConfig", {**TEXT, "sliding_window": 8}, {}),
    "mistral-unlimited": ("MistralForCausalLM", "MistralConfig", {**TEXT, "sliding_window": None}, {}),
}


def main(folder: Path) -> None:
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    for name, (model, config, fields, saving) in MODELS.items():
        made = getattr(transformers, model)(getattr(transformers, config)(**fields))
        # Norms and biases begin as ones and zeros, which could change places unseen.
        for parameter in made.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter.data, parameter.mean().item(), 0.1)
        made.save_pretrained(folder / name, **saving)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
