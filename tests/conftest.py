"""Small random checkpoints, written by hand as other tools write them, and two ways to call the command line."""

from __future__ import annotations

import io
import json
import os
import random
import signal
import subprocess
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import sentencepiece
import torch
from safetensors.torch import save_file

import mmconvert as library
from mmconvert.cli import main
from tests.offline import sitecustomize

Tensors = dict[str, torch.Tensor]
Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Contents = dict[str, tuple[str, tuple[int, ...], bytes]]

# The environment of processes that have no network.
OFFLINE = {**os.environ, "PYTHONPATH": str(Path(sitecustomize.__file__).parent)}

LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 101,
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
CLIP: dict[str, Any] = {
    "architectures": ["CLIPVisionModelWithProjection"],
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_channels": 3,
    "image_size": 28,
    "patch_size": 14,
    "projection_dim": 24,
    "hidden_act": "quick_gelu",
}
LLAVA: dict[str, Any] = {
    "architectures": ["LlavaLlamaForCausalLM"],
    "model_type": "llava_llama",
    "image_aspect_ratio": "pad",
    "mm_vision_tower": "../image_model",
    "mm_projector_type": "mlp2x_gelu",
    "mm_hidden_size": 32,
    "mm_vision_select_layer": -2,
    "mm_vision_select_feature": "patch",
    "mm_use_im_start_end": False,
    "mm_use_im_patch_token": False,
}


def random_tensors(shapes: dict[str, tuple[int, ...]], seed: int, dtype: torch.dtype) -> Tensors:
    generator = torch.Generator().manual_seed(seed)
    return {key: torch.randn(shape, generator=generator).to(dtype) for key, shape in shapes.items()}


def llama_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    keys = hidden // config["num_attention_heads"] * config["num_key_value_heads"]
    shapes: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, hidden)}
    for layer in range(config["num_hidden_layers"]):
        for name, shape in {
            "self_attn.q_proj": (hidden, hidden),
            "self_attn.k_proj": (keys, hidden),
            "self_attn.v_proj": (keys, hidden),
            "self_attn.o_proj": (hidden, hidden),
            "mlp.gate_proj": (inner, hidden),
            "mlp.up_proj": (inner, hidden),
            "mlp.down_proj": (hidden, inner),
            "input_layernorm": (hidden,),
            "post_attention_layernorm": (hidden,),
        }.items():
            shapes[f"model.layers.{layer}.{name}.weight"] = shape
    shapes["model.norm.weight"] = (hidden,)
    if not config["tie_word_embeddings"]:
        shapes["lm_head.weight"] = (vocab, hidden)
    return shapes


def clip_shapes(config: dict[str, Any]) -> dict[str, tuple[int, ...]]:
    hidden, inner, patch = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    positions = (config["image_size"] // patch) ** 2 + 1
    shapes: dict[str, tuple[int, ...]] = {
        "vision_model.embeddings.class_embedding": (hidden,),
        "vision_model.embeddings.patch_embedding.weight": (hidden, config["num_channels"], patch, patch),
        "vision_model.embeddings.position_embedding.weight": (positions, hidden),
        "visual_projection.weight": (config["projection_dim"], hidden),
    }
    modules: dict[str, tuple[int, ...]] = {"pre_layrnorm": (hidden,), "post_layernorm": (hidden,)}
    for layer in range(config["num_hidden_layers"]):
        inside = f"encoder.layers.{layer}"
        modules |= {f"{inside}.self_attn.{name}_proj": (hidden, hidden) for name in ("q", "k", "v", "out")}
        modules |= {f"{inside}.mlp.fc1": (inner, hidden), f"{inside}.mlp.fc2": (hidden, inner)}
        modules |= {f"{inside}.layer_norm1": (hidden,), f"{inside}.layer_norm2": (hidden,)}
    for name, shape in modules.items():
        shapes |= {f"vision_model.{name}.weight": shape, f"vision_model.{name}.bias": shape[:1]}
    return shapes


def save(folder: Path, config: dict[str, Any], tensors: Tensors, container: str, shards: int) -> Path:
    """A checkpoint in the files that transformers writes: `container` is safetensors or bin."""
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config))
    stem, suffix = ("model", ".safetensors") if container == "safetensors" else ("pytorch_model", ".bin")
    keys = list(tensors)
    names = [f"{stem}-{n + 1:05d}-of-{shards:05d}{suffix}" for n in range(shards)] if shards > 1 else [stem + suffix]
    for number, name in enumerate(names):
        shard = {key: tensors[key] for key in keys[number::shards]}
        if container == "safetensors":
            save_file(shard, folder / name, {"format": "pt"})
        else:
            torch.save(shard, folder / name)
    if shards > 1:
        index = {"metadata": {}, "weight_map": {key: names[at % shards] for at, key in enumerate(keys)}}
        (folder / f"{stem}{suffix}.index.json").write_text(json.dumps(index))
    return folder


@pytest.fixture(scope="session")
def tokenizer() -> bytes:
    """A sentencepiece model of as many pieces as the small LLaMA has rows."""
    draw = random.Random(0)
    words = ["".join(draw.choices("abcdefghij", k=draw.randint(2, 6))) for _ in range(400)]
    lines = (" ".join(draw.choices(words, k=8)) for _ in range(200))
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines, model_writer=model, vocab_size=LLAMA["vocab_size"], model_type="bpe", minloglevel=2
    )
    return model.getvalue()


@pytest.fixture(scope="session")
def make_llama(tokenizer: bytes) -> Make:
    """`make_llama(folder, **config)`: a LLaMA; `edit` may change its tensors before they are saved."""

    def make(
        folder: Path,
        *,
        dtype: torch.dtype = torch.bfloat16,
        container: str = "safetensors",
        shards: int = 1,
        seed: int = 0,
        edit: Callable[[Tensors], object] = lambda tensors: None,
        **config: Any,
    ) -> Path:
        config = {**LLAMA, **config}
        tensors = random_tensors(llama_shapes(config), seed, dtype)
        edit(tensors)
        save(folder, config, tensors, container, shards)
        (folder / "tokenizer.model").write_bytes(tokenizer)
        return folder

    return make


@pytest.fixture(scope="session")
def make_clip() -> Make:
    """`make_clip(folder, **config)`: a CLIP tower with its projection, in float32."""

    def make(
        folder: Path,
        *,
        dtype: torch.dtype = torch.float32,
        seed: int = 1,
        edit: Callable[[Tensors], object] = lambda tensors: None,
        **config: Any,
    ) -> Path:
        config = {**CLIP, **config}
        tensors = random_tensors(clip_shapes(config), seed, dtype)
        edit(tensors)
        save(folder, config, tensors, "safetensors", 1)
        (folder / "preprocessor_config.json").write_text('{"image_processor_type": "CLIPImageProcessor"}')
        return folder

    return make


@pytest.fixture(scope="session")
def make_llava(make_llama: Make, make_clip: Make) -> Make:
    """`make_llava(folder, **text_config)`: `image_model/` and `text_model_llava/` as LLaVA saves them."""

    def make(
        folder: Path,
        *,
        names: tuple[str, str] = ("image_model", "text_model_llava"),
        edit: Callable[[Tensors], object] = lambda tensors: None,
        **config: Any,
    ) -> Path:
        vision, text = CLIP["hidden_size"], LLAMA["hidden_size"]
        projector: dict[str, tuple[int, ...]] = {
            "model.mm_projector.0.weight": (text, vision),
            "model.mm_projector.0.bias": (text,),
            "model.mm_projector.2.weight": (text, text),
            "model.mm_projector.2.bias": (text,),
        }

        def add_projector(tensors: Tensors) -> None:
            tensors |= random_tensors(projector, 2, torch.bfloat16)
            edit(tensors)

        make_clip(folder / names[0])
        make_llama(folder / names[1], edit=add_projector, **{**LLAVA, **config})
        return folder

    return make


@pytest.fixture(scope="session")
def llama(tmp_path_factory: pytest.TempPathFactory, make_llama: Make) -> Path:
    """A LLaMA in three bfloat16 safetensors shards; not to be changed."""
    return make_llama(tmp_path_factory.mktemp("llama") / "llama", shards=3)


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory, make_clip: Make) -> Path:
    """A CLIP tower; not to be changed."""
    return make_clip(tmp_path_factory.mktemp("clip") / "clip")


@pytest.fixture(scope="session")
def llava(tmp_path_factory: pytest.TempPathFactory, make_llava: Make) -> Path:
    """A LLaVA of two folders; not to be changed."""
    return make_llava(tmp_path_factory.mktemp("llava") / "llava")


@pytest.fixture(scope="session")
def contents() -> Callable[[Path], Contents]:
    """`contents(path)`: every tensor of a checkpoint as (element type, shape, bytes)."""
    return lambda path: {key: (ref.dtype.name, ref.shape, ref.read()) for key, ref in library.open(path).items()}


@pytest.fixture
def in_process(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Run]:
    """`in_process(main, "mmconvert")("list", "--json")`: a command line in this process, which is quick."""

    def program(main: Callable[[], object], name: str) -> Run:
        def run(*arguments: object) -> CompletedProcess[str]:
            argv = [name, *map(str, arguments)]
            monkeypatch.setattr(sys, "argv", argv)
            handler = signal.getsignal(signal.SIGTERM)
            capsys.readouterr()
            try:
                with pytest.raises(SystemExit) as ended:
                    main()
            finally:
                signal.signal(signal.SIGTERM, handler)
            assert isinstance(ended.value.code, int)
            return CompletedProcess(argv, ended.value.code, *capsys.readouterr())

        return run

    return program


@pytest.fixture
def mmconvert(in_process: Callable[..., Run]) -> Run:
    """`mmconvert("list", "--json")`."""
    return in_process(main, "mmconvert")


@pytest.fixture(scope="session")
def script() -> Path:
    """The installed command."""
    return Path(sysconfig.get_path("scripts"), "mmconvert")


@pytest.fixture(scope="session")
def shell(script: Path) -> Run:
    """`shell("list", "--json")`: the installed command in a process of its own."""

    def run(*arguments: object, env: dict[str, str] = OFFLINE) -> CompletedProcess[str]:
        return subprocess.run([script, *map(str, arguments)], capture_output=True, text=True, env=env, timeout=60)

    return run
