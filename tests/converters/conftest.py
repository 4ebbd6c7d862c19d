"""What tests of converters share: golden checkpoints, copies of them to be changed, conversions, and config tables.

A test names the types of these fixtures with `if TYPE_CHECKING: from tests.converters.conftest import ...`.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmconvert import Hints, Options, api, registry, spellings
from mmconvert.configs import Translation
from mmconvert.converter import Binding, Converter
from mmconvert.errors import InputRefused
from mmconvert.paths import ABSENT, get
from mmconvert.releases import Release
from mmconvert.spec import A, B

Arrays = dict[str, np.ndarray[Any, Any]]
Facts = tuple[list[int], str, str]
Reader = Callable[[Path], dict[str, Facts]]
LeafPaths = Callable[[Any], set[str]]

SAFETENSORS = Options(container="safetensors")
SMALL_CLIP = {
    "model_type": "clip_vision_model",
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "image_size": 28,
    "patch_size": 14,
}
SMALL_LLAVA = {
    "model_type": "llava_llama",
    "hidden_size": 48,
    "intermediate_size": 80,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 320,
    "mm_hidden_size": 32,
    "mm_projector_type": "mlp2x_gelu",
    "mm_use_im_patch_token": False,
    "mm_vision_select_layer": -2,
}


@dataclass(frozen=True)
class Draft:
    """A copy of a checkpoint folder, for a test to change."""

    path: Path

    def part(self, name: str) -> Draft:
        return Draft(self.path / name)

    def config(self) -> dict[str, Any]:
        config: dict[str, Any] = json.loads((self.path / "config.json").read_text("utf-8"))
        return config

    def write_config(self, config: Mapping[str, Any]) -> None:
        (self.path / "config.json").write_text(json.dumps(config), "utf-8")

    def set(self, **fields: Any) -> None:
        self.write_config({**self.config(), **fields})

    def drop(self, *names: str) -> None:
        self.write_config({name: value for name, value in self.config().items() if name not in names})

    def tensors(self) -> Arrays:
        return {
            key: array for file in sorted(self.path.glob("*.safetensors")) for key, array in load_file(file).items()
        }

    def write_tensors(self, tensors: Arrays) -> None:
        """Replace the weights by one `model.safetensors`."""
        for file in self.path.glob("model*.safetensors*"):
            file.unlink()
        save_file(tensors, self.path / "model.safetensors", {"format": "pt"})

    def change_tensors(self, change: Callable[[Arrays], object]) -> None:
        tensors = self.tensors()
        change(tensors)
        self.write_tensors(tensors)


@dataclass
class Workshop:
    """Copies and converts into fresh folders below one temporary folder, without waiting for the disk."""

    root: Path
    golden: Path
    numbers: count[int] = field(default_factory=count)

    def new(self) -> Path:
        return self.root / f"out{next(self.numbers)}"

    def draft(self, name: str) -> Draft:
        """A copy of the golden folder of this name."""
        return Draft(Path(shutil.copytree(self.golden / name, self.root / f"draft{next(self.numbers)}")))

    def edit(self, folder: Path) -> Draft:
        """A folder that the test itself has made."""
        return Draft(folder)

    @staticmethod
    def read_json(path: Path) -> Any:
        return json.loads(path.read_text("utf-8"))

    def refusal(self, src: Path, out: Path | None = None) -> str:
        """Why a conversion to CS is refused; nothing may be left where it would have gone."""
        target = out or self.new()
        with pytest.raises(InputRefused) as caught:
            api.convert(src, target, "cs-2.10", fsync=False)
        assert not target.exists()
        return str(caught.value)

    def convert(self, src: Path, to: str, options: Options = SAFETENSORS, **hints: Any) -> Path:
        out = self.new()
        api.convert(src, out, to, options=options, hints=Hints(**hints), fsync=False)
        return out


@dataclass(frozen=True)
class Configs:
    """The config table of one converter."""

    converter: Converter

    def translate(self, config: Mapping[str, Any]) -> Translation:
        return self.converter.configs.translate(A, config)

    def to_cs(self, config: Mapping[str, Any], release: str = "2.10") -> dict[str, Any]:
        return spellings.write(self.converter.b.changes, self.translate(config).target, Release.parse(release))

    def to_hf(self, section: Mapping[str, Any]) -> dict[str, Any]:
        return dict(self.converter.configs.translate(B, spellings.read(self.converter.b.changes, section)).target)

    def around(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """A Hugging Face config taken to CS and back."""
        return self.to_hf(self.to_cs(config))

    def canonical(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """What a Hugging Face config says that CS has words for, by field, class defaults filled in."""
        full = self.converter.configs.a.read(config)
        fields = {path: get(full, path) for rule in self.converter.configs.rules if rule.b for path in rule.a}
        return {path: value for path, value in fields.items() if value is not ABSENT}


def _configs(model: str, form: str = "hf") -> Configs:
    (found,) = (each for each in registry.converters() if (each.model, each.a.name, each.b.name) == (model, form, "cs"))
    return Configs(found)


@pytest.fixture(scope="session")
def golden() -> Path:
    """The folder of recorded checkpoints; see its README."""
    return Path(__file__).parents[1] / "golden"


@pytest.fixture
def workshop(tmp_path: Path, golden: Path) -> Workshop:
    return Workshop(tmp_path, golden)


@pytest.fixture
def gqa(workshop: Workshop) -> Draft:
    """A copy of a LLaMA with fewer key/value heads than heads."""
    return workshop.draft("inputs/llama_gqa")


@pytest.fixture
def llava(workshop: Workshop) -> Draft:
    """A copy of a LLaVA's two folders."""
    return workshop.draft("llava/tiny_src")


@pytest.fixture
def joined(workshop: Workshop) -> Draft:
    """A copy of the same LLaVA as transformers 4.57 saved it, in one folder."""
    return workshop.draft("llava/tiny_llava_hf_457")


@pytest.fixture(scope="session")
def leaf_paths() -> LeafPaths:
    """The dotted path of every value of a config, however deep."""

    def paths(value: Any, path: str = "") -> set[str]:
        items = value.items() if isinstance(value, Mapping) else enumerate(value) if isinstance(value, list) else ()
        inner = {found for name, item in items for found in paths(item, f"{path}.{name}" if path else str(name))}
        return inner or {path}

    return paths


@pytest.fixture(scope="session")
def facts() -> Reader:
    """Reads the shape, element type and SHA-256 of every tensor of a checkpoint."""

    def read(path: Path) -> dict[str, Facts]:
        return {
            key: (list(ref.shape), ref.dtype.name, hashlib.sha256(ref.read()).hexdigest())
            for key, ref in api.open(path).items()
        }

    return read


@pytest.fixture(scope="session")
def llava_config() -> Callable[..., dict[str, Any]]:
    """Makes the config of a small LLaVA: fields of the text part by name, those of the tower in `image`."""

    def make(image: Mapping[str, Any] | None = None, **text: Any) -> dict[str, Any]:
        return {"image_model": {**SMALL_CLIP, **(image or {})}, "text_model": {**SMALL_LLAVA, **text}}

    return make


@pytest.fixture(scope="session")
def llama() -> Configs:
    return _configs("llama")


@pytest.fixture(scope="session")
def mistral() -> Configs:
    return _configs("mistral")


@pytest.fixture(scope="session")
def clip() -> Configs:
    return _configs("clip-vit")


@pytest.fixture(scope="session")
def mmsimple() -> Configs:
    return _configs("mmsimple-llava", "llava")


@pytest.fixture(scope="session")
def cs_llava() -> Configs:
    return _configs("llava", "llava")


@pytest.fixture(scope="session")
def llava_hf() -> Configs:
    return _configs("mmsimple-llava", "llava-hf")


@pytest.fixture(scope="session")
def binding() -> Binding:
    """How llava-hf keeps LLaVA's two folders in one."""
    (found,) = {each.a.binding for each in registry.converters() if each.a.name == "llava-hf"}
    assert found is not None
    return found
