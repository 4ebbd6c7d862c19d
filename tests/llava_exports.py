"""LLaVA folders that mmconvert wrote, of checkpoints of many kinds, read again with nothing of its own."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open

from mmconvert import Options, api
from mmconvert.dtypes import BY_FLAG
from mmconvert.options import DEFAULTS
from tests.conftest import CLIP, LLAMA, Make, Tensors, random_tensors

Config = dict[str, Any]

# Folders of any name: what is in them says what they are.
TOWER, DECODER = "image_model", "text_model_llava"
MISTRAL: Config = {"architectures": ["MistralForCausalLM"], "model_type": "mistral", "sliding_window": 16}
LLAVA_MISTRAL: Config = {
    "architectures": ["LlavaMistralForCausalLM"],
    "model_type": "llava_mistral",
    "sliding_window": 16,
}
PLAIN: Config = {"architectures": ["LlamaForCausalLM"], "model_type": "llama"}
# As transformers 5 spells a config; what it means must arrive in the words that LLaVA's transformers reads.
NEW_WORDS: Config = {"rope_parameters": {"rope_theta": 5e5, "rope_type": "default"}, "dtype": "bfloat16"}
PREPROCESSOR: Config = {
    "size": {"shortest_edge": CLIP["image_size"]},
    "crop_size": {"height": CLIP["image_size"], "width": CLIP["image_size"]},
}
SHARDED = Options(max_shard_size=30_000)
INIT = Options(init={"projector": 1})


@dataclass(frozen=True)
class Case:
    """How a source is made, and what is done to it.

    A `plain` one has no projector, a `bare` one no preprocessor. `by` are the formats on the way to LLaVA's, `options`
    those of the first of these conversions and `llava` of the last.
    """

    config: Config = field(default_factory=dict)
    plain: bool = False
    bare: bool = False
    projector: str = "mlp2x_gelu"
    by: tuple[str, ...] = ("cs-2.10",)
    options: Options = DEFAULTS
    llava: Options = DEFAULTS


CASES: dict[str, Case] = {
    "multi-head": Case({"num_key_value_heads": LLAMA["num_attention_heads"]}),
    "grouped-query": Case(),
    "from CS safetensors": Case(options=Options(container="safetensors")),
    "from sharded CS safetensors": Case(options=Options(container="safetensors", max_shard_size=30_000)),
    "from an older CS": Case(by=("cs-2.4",)),
    "from llava-hf": Case(by=("llava-hf",)),
    "sharded": Case(llava=SHARDED),
    "linear projector": Case(projector="linear"),
    "projector of three layers": Case(projector="mlp3x_gelu"),
    "class token, another layer": Case({"mm_vision_select_feature": "cls_patch", "mm_vision_select_layer": -1}),
    "words of transformers 5": Case(NEW_WORDS),
    "tied": Case({"tie_word_embeddings": True}),
    "half precision": Case(llava=Options(dtype={"": BY_FLAG["fp16"]})),
    "a tower and a LLaMA": Case(PLAIN, plain=True, options=INIT),
    "a tower and a LLaMA, at once": Case(PLAIN, plain=True, by=(), llava=INIT),
    "a tower without preprocessor": Case(bare=True),
    "a tower and a Mistral": Case(MISTRAL, plain=True, options=INIT),
    "Mistral": Case(LLAVA_MISTRAL),
    "Mistral, sharded": Case(LLAVA_MISTRAL, llava=SHARDED),
}


@dataclass(frozen=True)
class Export:
    """The two folders, read with json and safetensors alone."""

    case: Case
    root: Path

    @property
    def mistral(self) -> bool:
        return "mistral" in self.case.config.get("model_type", "")

    @property
    def image(self) -> Path:
        return self.root / "image_model"

    @cached_property
    def text(self) -> Path:
        (text,) = (folder for folder in self.root.iterdir() if folder.is_dir() and folder != self.image)
        return text

    @cached_property
    def config(self) -> Config:
        return load(self.text / "config.json")

    @cached_property
    def vision(self) -> Config:
        return load(self.image / "config.json")

    @cached_property
    def texts(self) -> Tensors:
        return tensors(self.text)

    @cached_property
    def images(self) -> Tensors:
        return tensors(self.image)


def load(file: Path) -> Config:
    found: Config = json.loads(file.read_text("utf-8"))
    return found


def tensors(folder: Path) -> Tensors:
    """What is in all weight files of a folder, whatever an index says."""
    found: Tensors = {}
    for file in sorted(folder.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
    return found


def projector_shapes(kind: str) -> dict[str, tuple[int, ...]]:
    """`model.mm_projector`'s tensors, as LLaVA's builder makes its modules."""
    vision, text = CLIP["hidden_size"], LLAMA["hidden_size"]
    if kind == "linear":
        return {"model.mm_projector.weight": (text, vision), "model.mm_projector.bias": (text,)}
    shapes: dict[str, tuple[int, ...]] = {}
    for layer in range(int(kind[len("mlp")])):
        shapes[f"model.mm_projector.{2 * layer}.weight"] = (text, text if layer else vision)
        shapes[f"model.mm_projector.{2 * layer}.bias"] = (text,)
    return shapes


def export(case: Case, folder: Path, make_llava: Make, make_clip: Make, make_llama: Make) -> Export:
    """Make the source of a case, and convert it to LLaVA's folders."""
    source = folder / "source"
    sizes = {name: value for name, value in case.config.items() if name != "dtype"}
    if case.plain:
        make_clip(source / TOWER)
        make_llama(source / DECODER, **sizes)
    else:
        change = _projector(case.projector)
        make_llava(source, names=(TOWER, DECODER), edit=change, mm_projector_type=case.projector, **sizes)
    config = source / DECODER / "config.json"
    config.write_text(json.dumps({**load(config), **case.config}), "utf-8")
    preprocessor = source / TOWER / "preprocessor_config.json"
    if case.bare:
        preprocessor.unlink()
    else:
        preprocessor.write_text(json.dumps({**load(preprocessor), **PREPROCESSOR}), "utf-8")
    for to in (*case.by, "llava"):
        options = case.llava if to == "llava" else case.options
        api.convert(source, folder / to, to, options=options, fsync=False)
        source = folder / to
    return Export(case, source)


def _projector(kind: str) -> Callable[[Tensors], None]:
    def edit(tensors: Tensors) -> None:
        for key in [key for key in tensors if "mm_projector" in key]:
            del tensors[key]
        tensors |= random_tensors(projector_shapes(kind), 3, torch.bfloat16)

    return edit
