"""The intact checkpoints that mutants are made of, small, each with what its container may hold beside the usual."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import quote

from mmconvert import api
from mmconvert.containers import mdl_child
from mmconvert.options import Options

GOLDEN = Path(__file__).parents[1] / "golden"
LLAMA: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "vocab_size": 40,
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
# The largest shard of the small LLaMA, which makes seven.
SHARD = 2000


def llama(folder: Path, to: str = "hf", **options: Any) -> None:
    with TemporaryDirectory() as place:
        config = Path(place, "config.json")
        config.write_text(json.dumps(LLAMA))
        api.synth("llama", config, folder, to, options=Options(**options), fsync=False)


def sharded(folder: Path) -> None:
    llama(folder, max_shard_size=SHARD)


def pickled(folder: Path) -> None:
    """Saved by torch, with a tensor that is a view, turned, of a larger one, and two that are one."""
    import torch

    tensors = _unpacked(folder)
    wide = torch.zeros(3, *tensors["model.layers.0.mlp.up_proj.weight"].shape[::-1])
    tensors["model.layers.0.mlp.up_proj.weight"] = wide[1].t()
    tensors["model.layers.0.input_layernorm.weight"] = tensors["model.norm.weight"]
    torch.save(tensors, folder / "pytorch_model.bin")


def pickled_shards(folder: Path) -> None:
    import torch

    tensors = _unpacked(folder)
    names = [f"pytorch_model-{number:05d}-of-00003.bin" for number in (1, 2, 3)]
    for number, name in enumerate(names):
        torch.save({key: tensors[key] for key in list(tensors)[number::3]}, folder / name)
    weight_map = {key: names[at % 3] for at, key in enumerate(tensors)}
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index, indent=2))


def _unpacked(folder: Path) -> dict[str, Any]:
    """The small LLaMA's folder without its weights, which are given."""
    import torch

    llama(folder)
    tensors = {
        key: torch.frombuffer(bytearray(ref.read()), dtype=torch.float32).reshape(ref.shape)
        for key, ref in api.open(folder).items()
    }
    (folder / "model.safetensors").unlink()
    return tensors


def own_mdl(folder: Path) -> None:
    llama(folder, "cs")


def reference_mdl(folder: Path) -> None:
    """Written by the reference: every tensor in chunks, compressed by LZ4."""
    api.convert(GOLDEN / "inputs/llama_tied", folder, "cs-2.4", fsync=False)
    shutil.copyfile(GOLDEN / "mdl/llama_tied_cs-2.4.mdl", folder / "model.mdl")


def trainer_mdl(folder: Path) -> None:
    """Saved as the reference's trainer does: links, plain values, and the params in the file itself."""
    folder.mkdir()
    shutil.copyfile(GOLDEN / "mdl/mmsimple_trainer_checkpoint_3.mdl", folder / "model.mdl")


def legacy_mdl(folder: Path) -> None:
    """Of format 0.4, with a tensor in chunks, one in bfloat16, one that is one value and one that is a link."""
    import h5py
    import numpy as np

    llama(folder, "cs-2.0")
    tensors = {key: (ref.shape, ref.read()) for key, ref in api.open(folder).items()}
    full, half = sorted(key for key in tensors if ".layers." in key and "norm" in key)
    twins = {"ln_f.weight": "transformer_decoder.norm.weight"}

    def store(file: Any, key: str, shape: tuple[int, ...], data: bytes) -> None:
        name, array = quote(f"model.{key}", safe=""), np.frombuffer(data, "<f4").reshape(shape)
        how: dict[str, Any] = {"data": array}
        said: dict[str, Any] = {"__H5_TYPE__": "TorchTensorH5Type"}
        if key == full:
            how = {"data": h5py.Empty("<f4")}
            said = {"__H5_TYPE__": "DeferredFullTensor", "shape": shape, "fill_value": 1.0, "is_bfloat16": False}
        elif key in twins:
            how = {"data": h5py.Empty("<f4")}
            said = {
                "__H5_TYPE__": "DeferredH5Tensor",
                "link_to_self": True,
                "key": quote(f"model.{twins[key]}", safe=""),
            }
        elif key == half:
            how, said = {"data": (array.view("<u4") >> 16).astype("<i2")}, {**said, "is_bfloat16": True}
        elif "mlp" in key or "dense" in key:
            how |= {"chunks": (5, 7), "compression": "gzip"}
        file.create_dataset(name, **how).attrs.update(said)

    with h5py.File(folder / "model.mdl", "w") as file:
        file.attrs.update({"__version__": 0.4, "__cstorch_version__": "2.0.2", "__spec__": "80049500"})
        for key, (shape, data) in tensors.items():
            store(file, key, shape, data)
        file.create_dataset("global_step", data=7).attrs["__H5_TYPE__"] = "ScalarH5Type"


def answered(folder: Path) -> None:
    """A CS checkpoint, and what is answered about its `.mdl` file by the process that opens it."""
    reference_mdl(folder)
    (folder / "answer.json").write_text(json.dumps(mdl_child.read(str(folder / "model.mdl"))))


def llava(folder: Path) -> None:
    shutil.copytree(GOLDEN / "llava/tiny_src", folder)
    config = folder / "text_model_llava/config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "mm_vision_tower": "../image_model"}, indent=2))


def llava_hf(folder: Path) -> None:
    shutil.copytree(GOLDEN / "llava/tiny_llava_hf", folder)


def llava_of_llava_hf(folder: Path) -> None:
    """LLaVA's folders with a tokenizer.json, and no tokenizer.model beside it."""
    api.convert(GOLDEN / "llava/tiny_llava_hf", folder, "llava", options=Options(tower_path="relative"), fsync=False)


def llava_cs(folder: Path) -> None:
    api.convert(GOLDEN / "llava/tiny_src", folder, "cs", options=Options(container="safetensors"), fsync=False)


def with_params(folder: Path) -> None:
    """A LLaVA, and the params file of a trainer to have its model written into."""
    llava(folder)
    shutil.copyfile(GOLDEN / "mdl/mmsimple_trainer_params.yaml", folder / "params.yaml")
