"""Make the demo's input: a small CLIP tower and a small LLaMA with its tokenizer, saved by transformers itself.

Usage: python docs/small_models.py FOLDER. Writes FOLDER/clip-small, FOLDER/llama-small (sharded bfloat16 safetensors)
and FOLDER-bin with the same weights as `pytorch_model.bin`, the way older checkpoints come.
"""

from __future__ import annotations

import shutil
import sys
from io import BytesIO
from pathlib import Path

import sentencepiece
import torch
from small_pictures import COLOURS, QUESTION, SHAPES, SIDE
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaTokenizer,
)

from mmsimple.data.templates import VICUNA_SYSTEM

VOCABULARY = 512


def save_tokenizer(folder: Path) -> None:
    """A sentencepiece model trained on what the demo says, and the files that transformers adds to it."""
    said = [f"{VICUNA_SYSTEM} USER: {QUESTION} ASSISTANT: {colour}" for colour in COLOURS]
    said += [f"a {colour} {shape}" for colour in COLOURS for shape in SHAPES]
    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(said * 10),
        model_writer=model,
        vocab_size=VOCABULARY,
        model_type="bpe",
        byte_fallback=True,
        minloglevel=2,
        pad_id=-1,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    LlamaTokenizer.from_pretrained(folder).save_pretrained(folder)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    vision = CLIPVisionConfig(
        hidden_size=96,
        intermediate_size=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        image_size=SIDE,
        patch_size=14,
    )
    CLIPVisionModel(vision).to(torch.bfloat16).save_pretrained(folder / "clip-small")
    CLIPImageProcessorPil(size={"shortest_edge": SIDE}, crop_size=SIDE).save_pretrained(folder / "clip-small")

    text = LlamaConfig(
        vocab_size=VOCABULARY,
        hidden_size=120,
        intermediate_size=320,
        num_hidden_layers=4,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=256,
        rms_norm_eps=1e-5,
        # With weights as small as they usually are at first, one that is frozen says the same whatever it sees.
        initializer_range=0.1,
    )
    llama = LlamaForCausalLM(text).to(torch.bfloat16)
    llama.save_pretrained(folder / "llama-small", max_shard_size="1MB")
    save_tokenizer(folder / "llama-small")

    # The same two models, the language model as a pickle.
    copy = folder.with_name(folder.name + "-bin")
    shutil.copytree(folder / "clip-small", copy / "clip-small")
    (copy / "llama-small").mkdir(parents=True)
    for file in (folder / "llama-small").iterdir():
        if "safetensors" not in file.name:
            shutil.copy(file, copy / "llama-small")
    torch.save(llama.state_dict(), copy / "llama-small" / "pytorch_model.bin")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
