"""A folder as it is examined: configs, tensor headers and file names, each read when first asked for.

Nothing here raises for what is wrong with a file. What cannot be read is noted among the troubles, once, and looks
absent; so one broken file does not hide what is wrong with the others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from mmconvert.containers import open_folder, weight_files
from mmconvert.containers.shards import inside
from mmconvert.documents import CONFIG_LIMITS, LISTING_LIMITS, read_json
from mmconvert.errors import InputRefused, MMConvertError
from mmconvert.layouts.hugging_face import snapshot
from mmconvert.sources import TensorRef

CONFIG = "config.json"


class Patient:
    """One folder. `shown` is put in front of the names of its files where they are told to people.

    Folders below it, and others that it leads to, are patients too, and share its `troubles`.
    """

    def __init__(self, path: Path, shown: str = "", troubles: dict[str, None] | None = None) -> None:
        self.path = path
        self.shown = shown
        # A dictionary, for its order and because a file may be asked for in two ways.
        self.troubles: dict[str, None] = {} if troubles is None else troubles
        self._documents: dict[str, Any] = {}

    def at(self, name: str) -> str:
        """A file of this folder as people are told of it."""
        return f"{self.shown}{name}"

    def led_to(self, path: Path) -> Patient:
        """A folder elsewhere that this one leads to."""
        return Patient(path, f"{path}/", self.troubles)

    @cached_property
    def _entries(self) -> tuple[Sequence[Path], Sequence[Path]]:
        """The files and the folders in this folder."""
        try:
            found = sorted(self.path.iterdir())
            return [each for each in found if each.is_file()], [each for each in found if each.is_dir()]
        except OSError as failure:
            self.troubles[f"{self.path}: cannot be read: {failure.strerror}"] = None
            return (), ()

    @cached_property
    def names(self) -> frozenset[str]:
        """The names of the files in this folder."""
        return frozenset(each.name for each in self._entries[0])

    @cached_property
    def folders(self) -> Mapping[str, Patient]:
        """The folders in this folder by name; hub cache folders stand for their newest snapshot."""
        found = {}
        for each in self._entries[1]:
            try:
                found[each.name] = Patient(snapshot(each), f"{self.shown}{each.name}/", self.troubles)
            except (MMConvertError, OSError) as failure:
                self.troubles[str(failure)] = None
        return found

    def document(self, name: str) -> Mapping[str, Any]:
        """The mapping in a JSON file of this folder; empty where there is none that can be read."""
        if name not in self.names:
            return {}
        if name not in self._documents:
            self._documents[name] = self._read(name)
        found: Mapping[str, Any] = self._documents[name]
        return found

    def _read(self, name: str) -> Mapping[str, Any]:
        try:
            found = read_json(inside(self.path, name), CONFIG_LIMITS if name == CONFIG else LISTING_LIMITS)
            if isinstance(found, dict):
                return found
            self.troubles[f"{self.path / name}: holds no mapping"] = None
        except InputRefused as refusal:
            self.troubles[str(refusal)] = None
        return {}

    @property
    def config(self) -> Mapping[str, Any]:
        return self.document(CONFIG)

    @cached_property
    def weight_files(self) -> Sequence[str]:
        """The names of the files that hold, or lead to, the weights, the preferred one first."""
        return weight_files(self.path) if self.names else ()

    @cached_property
    def tensors(self) -> Mapping[str, TensorRef]:
        """The tensors of the weights; empty where there are none, or none that can be read."""
        if not self.weight_files:
            return {}
        try:
            return open_folder(self.path)[0]
        except InputRefused as refusal:
            self.troubles[str(refusal)] = None
            return {}

    def files(self, *names: str) -> Mapping[str, Path]:
        """Those of the named files that are there."""
        return {name: self.path / name for name in names if name in self.names}
