"""What modelzoo makes of a folder: which files it reads, and what its classes demand of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path

from mmconvert import registry
from mmconvert.converter import Converter
from mmconvert.diagnosis import Patient
from mmconvert.errors import InputRefused, MMConvertError
from mmconvert.layouts import Checkpoint, recognise
from mmconvert.params import model_section
from mmconvert.schema import Schema
from mmconvert.sources import TensorRef
from mmconvert.spec import B, Config, Expansion, TooMany, expand

from .traps_parts import below

# What old releases, and some trainers, put in front of every key.
PREFIX = "model."


def holds_cs(patient: Patient) -> bool:
    """Whether a folder is a CS checkpoint rather than one of Hugging Face."""
    holds_mdl = any(name.endswith(".mdl") for name in patient.names)
    if "config.json" in patient.names:
        return holds_mdl and not patient.weight_files
    return holds_mdl or bool(patient.weight_files)


class Cerebras:
    """A folder as modelzoo sees it: a checkpoint, and the model section of its params file.

    `checkpoint` is None where it cannot be read, and `refusal` says why.
    """

    def __init__(self, patient: Patient) -> None:
        self.patient = patient
        self.checkpoint: Checkpoint | None = None
        self.refusal: MMConvertError | None = None
        if holds_cs(patient):
            try:
                self.checkpoint = recognise(patient.path)
            except MMConvertError as refusal:
                self.refusal = refusal

    @property
    def mdl_files(self) -> Sequence[str]:
        return sorted(name for name in self.patient.names if name.endswith(".mdl"))

    @property
    def params_files(self) -> Sequence[str]:
        return sorted(name for name in self.patient.names if name.endswith((".yaml", ".yml")))

    @property
    def weights_can_be_read(self) -> bool:
        if not self.mdl_files:
            return bool(self.patient.tensors)
        from mmconvert.containers import mdl_read

        try:
            mdl_read.read_file(self.patient.path / self.mdl_files[0])
        except InputRefused:
            return False
        return True

    @property
    def where(self) -> str:
        """The params file, as people are told of it."""
        where = Path(self.checkpoint.config_from if self.checkpoint else "")
        return self.patient.at(where.name) if where.parent == self.patient.path else str(where)

    @cached_property
    def written(self) -> Config:
        """The model section as it is written, in the spelling of its release."""
        return model_section(self.checkpoint.params) if self.checkpoint else {}

    @cached_property
    def section(self) -> Config:
        """The model section in the newest spelling."""
        return self.checkpoint.config if self.checkpoint else {}

    @cached_property
    def converter(self) -> Converter | None:
        node = self.checkpoint.node if self.checkpoint else None
        for each, side in registry.formats():
            if node is not None and side == B and (each.model, each.b.name) == (node.model, node.format):
                return each
        return None

    @cached_property
    def schemas(self) -> Mapping[str, Schema]:
        """The schema of each part of the section, by its path."""
        return self.converter.configs.b.schemas(self.section) if self.converter else {}

    def read(self) -> Config:
        """The section with defaults filled in. Raises ValueError where it makes no sense."""
        return self.converter.configs.b.read(self.section, frozenset(self.tensors)) if self.converter else {}

    @cached_property
    def demand(self) -> Expansion:
        """What the section demands; nothing where it makes no sense. Raises InputRefused where that is too much."""
        try:
            return expand(self.converter.tables, self.read()) if self.converter else Expansion(())
        except TooMany as error:
            raise InputRefused(f"{self.checkpoint.config_from if self.checkpoint else 'config'}: {error}") from error
        except ValueError:
            return Expansion(())

    @cached_property
    def copies(self) -> Mapping[str, str]:
        """Tensors that are saved twice: the second name, and the first."""
        return {each.key: each.of for each in self.demand.twins if each.side == B and each.written}

    @cached_property
    def tensors(self) -> Mapping[str, TensorRef]:
        """The tensors without the prefix that some have."""
        return below(self.checkpoint.tensors, PREFIX, "") if self.checkpoint else {}
