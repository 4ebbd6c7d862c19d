"""What LLaVA's loader makes of a folder as a whole: whether it is a model that it can load, and of which class."""

from __future__ import annotations

from collections.abc import Iterator

from .. import clip
from ..llava_names import is_llava_text
from .view_cs import holds_cs
from .view_llava import Llava, says

# --- what kind of folder it is ----------------------------------------------------------------------------------------


def is_cs(llava: Llava) -> Iterator[str]:
    if holds_cs(llava.patient):
        yield f"{llava.patient.path}: is a CS checkpoint"


def _adapter(llava: Llava) -> bool:
    return "adapter_config.json" in llava.text.names


def _fragment(llava: Llava) -> bool:
    """Whether there is a projector alone, from the end of a training or from its course."""
    files = "mm_projector.bin" in llava.text.names or "mm_projector" in llava.text.folders
    return files and not llava.text.weight_files


def adapter_of_mistral(llava: Llava) -> Iterator[str]:
    if (_adapter(llava) or _fragment(llava)) and _is_mistral(llava):
        yield from says(llava, "model_type")


def adapter_name(llava: Llava) -> Iterator[str]:
    if _adapter(llava) and not ("lora" in llava.name and "llava" in llava.name):
        yield f"{llava.text.path}: {llava.name!r} does not hold both words, llava and lora"


def adapter_without_trainables(llava: Llava) -> Iterator[str]:
    if _adapter(llava) and "non_lora_trainables.bin" not in llava.text.names:
        yield f"{llava.text.at('non_lora_trainables.bin')} is missing"


def is_adapter(llava: Llava) -> Iterator[str]:
    if _adapter(llava):
        yield f"{llava.text.path}: is a LoRA adapter"


def is_projector(llava: Llava) -> Iterator[str]:
    if _fragment(llava):
        yield f"{llava.text.path}: holds a projector alone"


def is_joined(llava: Llava) -> Iterator[str]:
    if "text_config" in llava.text.config:
        yield f"{llava.decoder.where}: has a text_config: this is llava-hf, transformers' own LLaVA"


def is_no_llava(llava: Llava) -> Iterator[str]:
    config = llava.text.config
    if not config:
        yield f"{llava.text.path}: has no config.json of a language model"
    elif clip.is_clip(config):
        yield f"{llava.decoder.where}: describes a tower, without a language model"
    elif not is_llava_text(config) and not any(name.startswith("mm_") for name in config):
        yield f"{llava.decoder.where}: says nothing of a tower or a projector"


# --- the class, which LLaVA chooses by name ---------------------------------------------------------------------------


def name_without_llava(llava: Llava) -> Iterator[str]:
    if "llava" not in llava.name:
        yield f"{llava.text.path}: LLaVA calls it {llava.name!r}, without the word llava"


def name_with_mpt(llava: Llava) -> Iterator[str]:
    if llava.mpt:
        yield f"{llava.text.path}: LLaVA calls it {llava.name!r}, with the letters mpt"


def name_with_lora(llava: Llava) -> Iterator[str]:
    if "lora" in llava.name:
        yield f"{llava.text.path}: LLaVA calls it {llava.name!r}, with the word lora"


def other_class(llava: Llava) -> Iterator[str]:
    """A LLaMA built as a Mistral or the reverse, where they compute different things."""
    return iter(()) if _same_either_way(llava) else _other_class(llava)


def other_class_alike(llava: Llava) -> Iterator[str]:
    return _other_class(llava) if _same_either_way(llava) else iter(())


def _other_class(llava: Llava) -> Iterator[str]:
    if not llava.mpt and llava.mistral != _is_mistral(llava):
        word = f"{llava.name!r} is {'with' if llava.mistral else 'without'} the word mistral"
        yield f"{llava.text.path}: {word}, and model_type {llava.text.config.get('model_type')!r}"


def _is_mistral(llava: Llava) -> bool:
    return llava.text.config.get("model_type") in ("llava_mistral", "mistral")


def _same_either_way(llava: Llava) -> bool:
    """Whether both classes compute the same from this config: they differ in defaults, window and rotary scaling."""
    config = llava.text.config
    explicit = config.get("num_key_value_heads") is not None and "sliding_window" in config
    return explicit and config["sliding_window"] is None and config.get("rope_scaling") is None


def type_of_transformers(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("model_type") == "llava":
        yield from says(llava, "model_type")


def other_type(llava: Llava) -> Iterator[str]:
    if llava.text.config.get("model_type") not in ("llava", "llava_llama", "llava_mistral", "llava_mpt"):
        yield from says(llava, "model_type")
