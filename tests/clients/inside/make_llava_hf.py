"""Save small random llava-hf models as this transformers saves them. Runs in the tests' own environment.

Usage: python make_llava_hf.py FOLDER TOKENIZER. Writes FOLDER/NAME for each of the models below, with a processor and a
chat template. TOKENIZER is a folder with a LLaMA tokenizer of 322 ids, of which the last two are `<image>` and `<pad>`.
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
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    # Weights as small as they usually are at first make logits in which a fault hardly shows.
    "initializer_range": 0.2,
}
# Rows are written up to a multiple of this.
MULTIPLE = 64
# As programs of the hub write it.
TEMPLATE = (
    "{% for message in messages %}USER: {% for part in message['content'] %}{% if part['type'] == 'image' %}<image>\n"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %} {% endfor %}"
    "{% if add_generation_prompt %}ASSISTANT:{% endif %}"
)
SENTENCES = (
    "A chat with a curious user. What is this? It is a red cat, ab cd 12.",
    "USER: Is it? ASSISTANT: No, a dog.",
)
# name: the language model's config, its fields, whether its tokenizer is of bytes, and the parts' element types
MODELS: dict[str, tuple[str, dict[str, Any], bool, tuple[torch.dtype, torch.dtype]]] = {
    "llama": ("LlamaConfig", {}, False, (torch.float32, torch.float32)),
    "mistral": ("MistralConfig", {"sliding_window": None}, False, (torch.float32, torch.float32)),
    "tied": ("LlamaConfig", {"tie_word_embeddings": True}, False, (torch.float32, torch.float32)),
    "mixed": ("LlamaConfig", {}, False, (torch.float16, torch.bfloat16)),
    "bytes": ("LlamaConfig", {}, True, (torch.float32, torch.float32)),
}


def byte_level(transformers: Any) -> Any:
    """As LLaMA 3's: of tokenizer.json alone, with a class that only transformers 5 has."""
    tokenizers: Any = importlib.import_module("tokenizers")
    backend = tokenizers.Tokenizer(tokenizers.models.BPE())
    backend.pre_tokenizer = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = tokenizers.decoders.ByteLevel()
    alphabet = tokenizers.pre_tokenizers.ByteLevel.alphabet()
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=340, initial_alphabet=alphabet, show_progress=False)
    backend.train_from_iterator(SENTENCES * 20, trainer)
    backend.add_special_tokens(["<s>", "</s>", "<|eot|>", "<image>", "<pad>"])
    begin = [("<s>", backend.token_to_id("<s>"))]
    backend.post_processor = tokenizers.processors.TemplateProcessing(single="<s> $A", special_tokens=begin)
    ends = {"bos_token": "<s>", "eos_token": "</s>", "pad_token": "<pad>", "extra_special_tokens": ["<|eot|>"]}
    return transformers.PreTrainedTokenizerFast(tokenizer_object=backend, **ends)


def configured(transformers: Any, kind: str, fields: dict[str, Any], tokenizer: Any) -> Any:
    ends = {"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id}
    rows = -(-len(tokenizer) // MULTIPLE) * MULTIPLE
    return transformers.LlavaConfig(
        vision_config=transformers.CLIPVisionConfig(**VISION),
        text_config=getattr(transformers, kind)(**{**TEXT, **ends, "vocab_size": rows, **fields}),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        pad_token_id=tokenizer.pad_token_id,
        image_seq_length=4,
        tie_word_embeddings=fields.get("tie_word_embeddings", False),
    )


def processor_of(transformers: Any, tokenizer: Any) -> Any:
    pixels = transformers.CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    said = {"patch_size": 14, "vision_feature_select_strategy": "default", "num_additional_image_tokens": 1}
    return transformers.LlavaProcessor(pixels, tokenizer, chat_template=TEMPLATE, **said)


def main(folder: Path, llama: Path) -> None:
    transformers: Any = importlib.import_module("transformers")
    torch.manual_seed(0)
    for name, (kind, fields, of_bytes, (vision, text)) in MODELS.items():
        tokenizer = byte_level(transformers) if of_bytes else transformers.AutoTokenizer.from_pretrained(llama)
        model = transformers.LlavaForConditionalGeneration(configured(transformers, kind, fields, tokenizer))
        # Norms and biases begin as ones and zeros, which could change places unseen.
        for parameter in model.parameters():
            if parameter.dim() == 1:
                torch.nn.init.normal_(parameter.data, parameter.mean().item(), 0.1)
        # Rows of no token of the language model's own, as they are after resizing: exports make them anew.
        own = model.config.image_token_index
        for embedding in (model.get_input_embeddings(), model.get_output_embeddings()):
            embedding.weight.data[own:] = embedding.weight.data[:own].mean(0)
        for key, parameter in model.named_parameters():
            parameter.data = parameter.data.to(vision if "vision_tower" in key else text)
        model.save_pretrained(folder / name)
        processor_of(transformers, tokenizer).save_pretrained(folder / name)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
