"""What both sides of `train.py` train with: one model, pictures, and training files of two phases.

transformers takes seconds to import: only what makes the model needs it.
"""

from __future__ import annotations

import json
import random
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from PIL import Image

import mmsimple
from mmconvert import Options, api
from mmsimple.data.job import job_of
from mmsimple.data.prepare import prepare

CONFIGS = Path(mmsimple.__file__).parent / "configs"
PHASES = (1, 2)
# Small open models have such proportions: an encoder nearly as large as its decoder, a fifth of which is its head. A
# picture has 576 tokens, as LLaVA's have.
SHAPES: dict[str, dict[str, Any]] = {
    "small": {
        "vision": {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 12, "num_attention_heads": 4},
        "text": {"hidden_size": 320, "intermediate_size": 864, "num_hidden_layers": 12, "num_attention_heads": 5},
        "vocab_size": 16000,
        "image_size": 336,
        "patch_size": 14,
    },
    # For a GPU: CLIP ViT-L/14 at 336 pixels before a decoder of a billion parameters.
    "1b": {
        "vision": {"hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16},
        "text": {"hidden_size": 2048, "intermediate_size": 5632, "num_hidden_layers": 22, "num_attention_heads": 32},
        "vocab_size": 32000,
        "image_size": 336,
        "patch_size": 14,
    },
}
PICTURES = 64
BATCH_SIZE, MICRO_BATCH_SIZE = 8, 2
WORDS = [f"{first}{rest}" for first in "bdfgklmnprst" for rest in ("a", "el", "ino", "ora", "ut", "isk")]
# Words of a caption, and of a question and its answer; those of LLaVA's data, roughly.
CAPTION = (8, 24)
QUESTION, ANSWER, TURNS = (6, 14), (10, 50), (1, 4)


def make(folder: Path, shape: str) -> None:
    """`hub/clip`, `hub/llama`, `cs`, `images`, and for each phase its data, such as `data1`, and `phase1.yaml`."""
    rng = random.Random(0)
    _models(folder / "hub", SHAPES[shape])
    api.convert(folder / "hub", folder / "cs", "cs", options=Options(init={"projector": 1}), fsync=False)
    _pictures(folder / "images")
    for phase in PHASES:
        params = _params(folder, phase, SHAPES[shape])
        (folder / f"phase{phase}.yaml").write_text(yaml.safe_dump(params))
        records = folder / f"phase{phase}.json"
        records.write_text(json.dumps([_record(rng, phase, number) for number in range(PICTURES)]))
        job = job_of(
            images=folder / "images",
            tokenizer=folder / "hub" / "llama",
            config=folder / f"phase{phase}.yaml",
            phase=phase,
            template=None,
            max_seq_length=None,
            max_num_img=None,
            too_long="skip",
        )
        prepare(records, folder / f"data{phase}", job, phase=phase)


def _models(folder: Path, shape: dict[str, Any]) -> None:
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        CLIPVisionModel,
        LlamaConfig,
        LlamaForCausalLM,
        LlamaTokenizer,
    )

    torch.manual_seed(0)
    side, vocab_size = shape["image_size"], shape["vocab_size"]
    vision = CLIPVisionConfig(**shape["vision"], image_size=side, patch_size=shape["patch_size"])
    CLIPVisionModel(vision).save_pretrained(folder / "clip")
    CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size=side).save_pretrained(folder / "clip")
    text = LlamaConfig(**shape["text"], vocab_size=vocab_size, max_position_embeddings=2048, rms_norm_eps=1e-5)
    LlamaForCausalLM(text).save_pretrained(folder / "llama")
    (folder / "llama" / "tokenizer.model").write_bytes(_tokenizer())
    LlamaTokenizer.from_pretrained(folder / "llama").save_pretrained(folder / "llama")


def _tokenizer() -> bytes:
    import sentencepiece

    model = BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(WORDS)] * 100),
        model_writer=model,
        vocab_size=500,
        model_type="bpe",
        byte_fallback=True,
        hard_vocab_limit=False,
        minloglevel=2,
        pad_id=-1,
    )
    return model.getvalue()


def _pictures(folder: Path) -> None:
    """JPEGs of 640 x 480, as those of COCO."""
    folder.mkdir()
    for number in range(PICTURES):
        noise = np.random.default_rng(number).integers(0, 256, (12, 16, 3), np.uint8)
        Image.fromarray(noise).resize((640, 480), Image.Resampling.BICUBIC).save(folder / f"{number}.jpg")


def _record(rng: random.Random, phase: int, number: int) -> dict[str, Any]:
    def words(least: int, most: int) -> str:
        return " ".join(rng.choices(WORDS, k=rng.randint(least, most)))

    turns = 1 if phase == 1 else rng.randint(*TURNS)
    said = []
    for turn in range(turns):
        asked = "" if phase == 1 else words(*QUESTION)
        said.append({"from": "human", "value": f"<image>\n{asked}" if turn == 0 else asked})
        said.append({"from": "gpt", "value": words(*(CAPTION if phase == 1 else ANSWER))})
    return {"id": str(number), "image": f"{number}.jpg", "conversations": said}


def _params(folder: Path, phase: int, shape: dict[str, Any]) -> dict[str, Any]:
    """The small params file of the phase, with this model and these pictures, and a rate that stays."""
    trainer: dict[str, Any] = yaml.safe_load((CONFIGS / f"tiny_phase{phase}.yaml").read_bytes())["trainer"]
    init, side = trainer["init"], shape["image_size"]
    model = yaml.safe_load((folder / "cs" / "config.yaml").read_bytes())
    init["model"] = {**model["model"], "freeze": init["model"]["freeze"]}
    init["schedulers"] = [{"LinearLR": {"initial_learning_rate": 1e-4, "end_learning_rate": 1e-4, "total_iters": 1}}]
    init["precision"] = None
    init["checkpoint"], init["logging"] = {}, {"log_steps": 1}
    init["callbacks"] = [{"ScopedTrainFlags": {"csx.performance.micro_batch_size": MICRO_BATCH_SIZE}}]
    loader = trainer["fit"]["train_dataloader"]
    loader |= {
        "data_dir": str(folder / f"data{phase}"),
        "img_data_dir": str(folder / "images"),
        "image_data_size": [3, side, side],
        "num_patches": (side // shape["patch_size"]) ** 2,
        "batch_size": BATCH_SIZE,
        "num_workers": 1,
        "transforms": [
            {"name": "resize", "size": side, "interpolation": "bicubic"},
            {"name": "center_crop", "size": side},
            {"name": "to_tensor"},
            loader["transforms"][-1],
        ],
    }
    return {"trainer": {"init": init, "fit": {"train_dataloader": loader}}}
