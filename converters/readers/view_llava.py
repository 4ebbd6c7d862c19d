"""What LLaVA's loader makes of a folder: where it finds the language model and the tower, and what it takes them for.

Known from LLaVA 1.2.2 with transformers 4.37.2. It chooses classes by the name of the folder and never by its config,
and it looks for the tower from the directory that the program was started in.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path

from mmconvert.diagnosis import Patient
from mmconvert.sources import TensorRef
from mmconvert.spec import Config

from .. import clip
from ..llava_names import is_llava_text, is_plain_text
from .traps_parts import LLAMA, MISTRAL, TOWER, Part, below, features

TOWER_IN_TEXT = "model.vision_tower.vision_tower."
PROJECTOR = "model.mm_projector."
NEWLINE = "model.image_newline"
# Names that the loader takes for the hub's, whether or not there is a hub to ask.
HUB_NAMES = ("openai", "laion")


def model_name(folder: Path) -> str:
    """What LLaVA calls a model: the last part of its path, with the one before it for a trainer's checkpoint."""
    path = folder.absolute()
    if path.parent.name == "snapshots":
        return path.parent.parent.name.rpartition("--")[2]
    return f"{path.parent.name}_{path.name}" if path.name.startswith("checkpoint-") else path.name


class Llava:
    """A folder as LLaVA's loader sees it: a language model with a projector, and the tower that it leads to."""

    def __init__(self, patient: Patient) -> None:
        self.patient = patient

    @cached_property
    def text(self) -> Patient:
        """The folder of the language model: this one, or the one in it that looks most like it."""
        folders = () if "config.json" in self.patient.names else self.patient.folders.values()
        for known in (is_llava_text, is_plain_text, _is_no_tower):
            for each in folders:
                if known(each.config):
                    return each
        return self.patient

    @cached_property
    def name(self) -> str:
        return model_name(self.text.path).lower()

    @property
    def mpt(self) -> bool:
        """Whether LLaVA builds an MPT, which it asks for first."""
        return "mpt" in self.name

    @property
    def mistral(self) -> bool:
        """Whether LLaVA builds a Mistral."""
        return "mistral" in self.name and not self.mpt

    @cached_property
    def decoder(self) -> Part:
        """The language model, as the class that LLaVA chooses."""
        others = (TOWER_IN_TEXT, PROJECTOR, NEWLINE)
        tensors = {key: ref for key, ref in self.text.tensors.items() if not key.startswith(others)}
        return Part(self.text.at("config.json"), self.text.config, tensors, "", MISTRAL if self.mistral else LLAMA)

    @cached_property
    def projector(self) -> Mapping[str, TensorRef]:
        return below(self.text.tensors, PROJECTOR)

    # --- the tower ----------------------------------------------------------------------------------------------------

    @property
    def tower_name(self) -> str | None:
        value = self.text.config.get("mm_vision_tower")
        return value if isinstance(value, str) and value else None

    @property
    def tower_on_hub(self) -> bool:
        name = self.tower_name or ""
        return name.startswith(HUB_NAMES) or "ShareGPT4V" in name

    @cached_property
    def places(self) -> Sequence[Path]:
        """The directories from which LLaVA, started there, finds the tower by its name."""
        text = self.text.path.absolute()
        return [each for each in (Path.cwd(), text, text.parent) if self.tower_name and _exists(each / self.tower_name)]

    @cached_property
    def sibling(self) -> Patient | None:
        """The tower that lies beside the language model."""
        if self.text is not self.patient:
            towers = {name: each for name, each in self.patient.folders.items() if clip.is_clip(each.config)}
            return towers.get("image_model") or next(iter(towers.values()), None)
        beside = self.text.path.absolute().parent / "image_model"
        return self.text.led_to(beside) if _exists(beside / "config.json") else None

    @cached_property
    def linked(self) -> Patient | None:
        """The tower that the config names, from wherever it is found."""
        if self.tower_name is None or not self.places:
            return None
        path = self.places[0] / self.tower_name
        if self.sibling is not None and path.samefile(self.sibling.path):
            return self.sibling
        return self.text.led_to(path)

    @property
    def tower_folder(self) -> Patient | None:
        """The tower that is used, or else the one that could be."""
        return self.linked or self.sibling

    @property
    def folders(self) -> Iterator[Patient]:
        yield self.text
        if self.tower_folder is not None:
            yield self.tower_folder

    @cached_property
    def tower(self) -> Part | None:
        folder = self.tower_folder
        if folder is None or not clip.is_clip(folder.config):
            return None
        # Names without the prefix are a trap of their own.
        tensors = below(folder.tensors, "vision_model.", "")
        return Part(folder.at("config.json"), folder.config, tensors, "vision_model.", TOWER)

    @cached_property
    def tower_in_text(self) -> Mapping[str, TensorRef]:
        """A tower that was saved with the language model."""
        return below(self.text.tensors, f"{TOWER_IN_TEXT}vision_model.", TOWER_IN_TEXT)

    @property
    def unfrozen(self) -> bool:
        """Whether the tower saved with the language model is the one that is used."""
        return bool(self.text.config.get("unfreeze_mm_vision_tower"))

    @property
    def towers(self) -> Iterator[Part]:
        if self.tower is not None:
            yield self.tower
            if self.unfrozen and self.tower_in_text:
                prefix = f"{TOWER_IN_TEXT}vision_model."
                yield Part(self.tower.where, self.tower.config, self.tower_in_text, prefix, TOWER)

    @property
    def positions(self) -> int | None:
        """The number of positions that a picture takes among the tokens."""
        patches = features(self.tower) if self.tower is not None else None
        if patches is None:
            return None
        return patches + (self.text.config.get("mm_vision_select_feature") == "cls_patch")


def says(llava: Llava, name: str, what: str | None = None) -> Iterator[str]:
    """A field of the config, and `what` it says; without that, its value or that it is absent."""
    if what is None:
        config = llava.text.config
        what = f"is {json.dumps(config[name], ensure_ascii=False)[:80]}" if name in config else "is absent"
    yield f"{llava.decoder.where}: {name} {what}"


def _is_no_tower(config: Config) -> bool:
    return bool(config) and not clip.is_clip(config)


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
