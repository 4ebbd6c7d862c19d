"""Folders that hold less than a model, or another kind of weights, and what is hostile in how they are made up."""

from __future__ import annotations

import os
from collections.abc import Callable

import torch
from safetensors.torch import load_file, save_file

from tests.trust.hostile.case import CONVERT, Case, Cases, Place

WHAT = "folder"
FILE = "model.safetensors"
Q_PROJ = "model.layers.0.self_attn.q_proj."
Tensors = dict[str, torch.Tensor]


def holding(change: Callable[[Tensors], object]) -> Callable[[Place], None]:
    """A sound checkpoint with other tensors."""

    def build(place: Place) -> None:
        file = place.copy("llama") / FILE
        tensors = load_file(file)
        change(tensors)
        save_file(tensors, file, {"format": "pt"})

    return build


def quantised(name: str, dtype: torch.dtype = torch.int32) -> Callable[[Place], None]:
    """A linear layer has this beside its weight."""
    return holding(lambda tensors: tensors.update({Q_PROJ + name: torch.zeros(4, 4).to(dtype)}))


def in_place_of_weight(name: str) -> Callable[[Place], None]:
    """A linear layer has this instead of a weight."""

    def change(tensors: Tensors) -> None:
        del tensors[Q_PROJ + "weight"]
        tensors[Q_PROJ + name] = torch.zeros(6, 48, dtype=torch.int32)

    return holding(change)


def adapter(place: Place) -> None:
    place.source.mkdir()
    (place.source / "adapter_config.json").write_text('{"peft_type": "LORA", "base_model_name_or_path": "../foreign"}')
    weights = {"base_model.model." + Q_PROJ + "lora_A.weight": torch.zeros(4, 48)}
    save_file(weights, place.source / "adapter_model.safetensors")


def adapter_beside_config(place: Place) -> None:
    adapter(place)
    (place.source / "config.json").write_bytes((place.bases["llama"] / "config.json").read_bytes())


def projector(place: Place) -> None:
    """What LLaVA's first phase leaves: a config and the projector alone."""
    place.source.mkdir()
    config = place.bases["llava"] / "text_model_llava" / "config.json"
    (place.source / "config.json").write_bytes(config.read_bytes())
    weights = {"model.mm_projector.0.weight": torch.zeros(48, 32)}
    torch.save(weights, place.source / "mm_projector.bin")


def empty(place: Place) -> None:
    place.source.mkdir()


def in_itself(place: Place) -> None:
    """Folders in folders, each a link to the one above."""
    place.source.mkdir()
    (place.source / "image_model").symlink_to(".")
    (place.source / "text_model").symlink_to("../source")


def crowded(place: Place) -> None:
    place.source.mkdir()
    for at in range(3000):
        (place.source / f"folder{at}").mkdir()


def tower(value: str) -> Callable[[Place], None]:
    """A LLaVA alone, whose tower is said to be somewhere."""

    def build(place: Place) -> None:
        place.copy("llava")
        for file in (place.source / "image_model").iterdir():
            file.unlink()
        place.rewrite_config(place.source / "text_model_llava", mm_vision_tower=value.format(place.foreign))

    return build


def pipes(place: Place) -> None:
    place.source.mkdir()
    for name in ("config.json", "model.safetensors", "config.yaml", "model.mdl", "tokenizer.json"):
        os.mkfifo(place.source / name)


def weights_are_a_pipe(place: Place) -> None:
    (place.copy("llama") / FILE).unlink()
    os.mkfifo(place.source / FILE)


def locked(base: str, name: str, mode: int) -> Callable[[Place], None]:
    """A folder of a checkpoint whose mode keeps others from looking into it, as an archive may carry it."""
    return lambda place: (place.copy(base) / name).chmod(mode)


def strangers(tensors: Tensors) -> None:
    tensors |= {f"model.layers.0.self_attn.q_projx{at}.weight": torch.zeros(0) for at in range(20_000)}


def strange_names(tensors: Tensors) -> None:
    """Every tensor has another name, and each is near many of those that it should have."""
    for key in list(tensors):
        tensors[key.replace("weight", "weigth")] = tensors.pop(key)
    strangers(tensors)


REMEDY = "convert the weights it was made from"

CASES: Cases = {
    **{
        f"companions of quantised weights: {name}": Case(quantised(name), [FILE, Q_PROJ + name, "quantised", REMEDY])
        for name in ("weight_scale_inv", "qzeros", "scales", "g_idx", "weight.absmax", "weight.quant_map")
    },
    "a weight of integers": Case(
        holding(lambda tensors: tensors.update({Q_PROJ + "weight": torch.zeros(48, 48, dtype=torch.int8)})),
        [FILE, Q_PROJ + "weight", "int8", "floating-point"],
    ),
    "weights packed in integers": Case(in_place_of_weight("qweight"), [FILE, Q_PROJ + "qweight", "quantised", REMEDY]),
    "a LoRA adapter": Case(adapter, ["a LoRA adapter", "merge it into its base model first"]),
    "a LoRA adapter beside a config": Case(adapter_beside_config, ["a LoRA adapter", "merge it into its base model"]),
    "a projector alone": Case(projector, ["projector"], "llava-to-cs --src {source} --out {out}"),
    "nothing in it": Case(empty, ["no checkpoint is recognised here"]),
    "itself, by links": Case(in_itself, ["no checkpoint is recognised here"]),
    "3,000 folders": Case(crowded, ["no checkpoint is recognised here"]),
    "a tower that is said to be a file": Case(
        tower("/etc/passwd"),
        ["mm_vision_tower", "--vision-tower"],
        "llava-to-cs --src {source}/text_model_llava --out {out}",
    ),
    "a tower that is said to be a device": Case(
        tower("/dev/zero"),
        ["mm_vision_tower", "--vision-tower"],
        "llava-to-cs --src {source}/text_model_llava --out {out}",
    ),
    "a tower that is said to be elsewhere": Case(
        tower("{}"), ["mm_vision_tower", "--vision-tower"], "llava-to-cs --src {source}/text_model_llava --out {out}"
    ),
    "a tower whose name has a NUL": Case(
        tower("a\0b"), ["mm_vision_tower"], "llava-to-cs --src {source}/text_model_llava --out {out}"
    ),
    "a tower whose name has a megabyte": Case(
        tower("x" * 1_000_000), ["mm_vision_tower"], "llava-to-cs --src {source}/text_model_llava --out {out}"
    ),
    "nothing but pipes": Case(pipes, ["config.json", "not a regular file"]),
    "weights that are a pipe": Case(weights_are_a_pipe, ["no weights"]),
    **{
        f"{name} of mode {mode:o}": Case(
            locked(base, name, mode), [name, "cannot be read"], "inspect {source}", needs="an ordinary user"
        )
        for base, name in (("llava", "image_model"), ("cs llava", "assets"), ("cs llava", "assets/text_model"))
        for mode in (0o000, 0o111)
    },
    "20,000 tensors too many": Case(holding(strangers), [FILE, "no tensor of this name"]),
    "tensors of strange names": Case(holding(strange_names), [FILE, "no tensor of this name"]),
    "values that are NaN and infinite": Case(
        holding(lambda tensors: tensors["model.norm.weight"].copy_(torch.tensor([float("nan"), float("inf")] * 24))),
        ["tensors"],
        CONVERT,
        code=0,
    ),
}

# The cases of every run of the tests; the others are for `make trust`.
USUAL = (
    "companions of quantised weights: weight_scale_inv",
    "weights packed in integers",
    "a LoRA adapter",
    "a projector alone",
    "nothing but pipes",
    "a tower whose name has a megabyte",
    "tensors of strange names",
    "values that are NaN and infinite",
)
