"""What releases 1.9 and 2.0 left on disk: an old container, an old section, and None in place of tied weights."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import h5py
import pytest
import yaml

from mmconvert import api

if TYPE_CHECKING:
    from tests.converters.conftest import Arrays, Reader, Workshop

FORMATS = {"1.9": 0.3, "2.0": 0.4}


def save_legacy(folder: Path, release: str, section: dict[str, Any], tensors: Arrays, missing: set[str]) -> Path:
    """A checkpoint as an old release saved it: every leaf a dataset at the root, under its quoted key."""
    folder.mkdir()
    with h5py.File(folder / "checkpoint_7.mdl", "w") as file:
        file.attrs["__version__"] = FORMATS[release]
        file.attrs["__spec__"] = b"not read".hex()
        for key, array in tensors.items():
            dataset = file.create_dataset(quote(f"model.{key}", safe=""), data=array, compression="gzip")
            dataset.attrs["__H5_TYPE__"] = "TorchTensorH5Type"
            dataset.attrs["is_bfloat16"] = False
        for key in missing:
            none = file.create_dataset(quote(f"model.{key}", safe=""), data=h5py.Empty("f4"))
            none.attrs["__H5_TYPE__"] = "NoneH5Type"
        step = file.create_dataset("global_step", data=7)
        step.attrs["__H5_TYPE__"] = "ScalarH5Type"
    params = {"model": section, "runconfig": {"max_steps": 7, "keep_checkpoint_max": 2}}
    (folder / "params.yaml").write_text(yaml.safe_dump(params))
    return folder


@pytest.fixture
def legacy(workshop: Workshop, golden: Path) -> Any:
    """`legacy(name, release, missing)`: a golden LLaMA as that release saved it."""

    def make(name: str, release: str, missing: set[str] = frozenset()) -> Path:  # type: ignore[assignment]
        cs = workshop.convert(golden / "inputs" / name, f"cs-{release}")
        section = yaml.safe_load((cs / "config.yaml").read_text("utf-8"))["model"]
        tensors = {key: array for key, array in workshop.edit(cs).tensors().items() if key not in missing}
        return save_legacy(workshop.new(), release, section, tensors, missing)

    return make


@pytest.mark.parametrize("release", FORMATS)
@pytest.mark.parametrize("prefix", ["", "model."])
def test_it_goes_home_and_to_the_newest_release(
    legacy: Any, release: str, prefix: str, golden: Path, workshop: Workshop, facts: Reader
) -> None:
    source = legacy("llama_mha", release)
    if prefix:
        with h5py.File(source / "checkpoint_7.mdl", "r+") as file:
            for key in [key for key in file if key.startswith("model.")]:
                file.move(key, prefix + key)
    found = api.inspect(source)
    assert (found.model, found.release, found.release_from) == ("llama", release, "the container's format")
    assert facts(workshop.convert(source, "hf")) == facts(golden / "inputs/llama_mha")
    newest = workshop.convert(source, "cs-2.10")
    assert facts(newest) == facts(workshop.convert(golden / "inputs/llama_mha", "cs-2.10"))
    params = yaml.safe_load((newest / "config.yaml").read_text("utf-8"))
    assert params["trainer"]["init"]["loop"] == {"max_steps": 7}
    assert params["trainer"]["init"]["callbacks"] == [{"KeepNCheckpoints": {"n": 2}}]


@pytest.mark.parametrize(
    "missing",
    [
        {"lm_head.weight"},
        {"ln_f.weight"},
        {"transformer_decoder.norm.weight"},
        {"embedding_layer.word_embeddings.weight", "ln_f.weight"},
    ],
    ids=lambda missing: min(missing),
)
@pytest.mark.parametrize("target", ["hf", "cs-2.10"])
def test_none_in_place_of_a_tied_weight_is_filled_from_its_twin(
    legacy: Any, missing: set[str], target: str, golden: Path, workshop: Workshop, facts: Reader
) -> None:
    source = legacy("llama_tied", "1.9", missing)
    whole = golden / "inputs/llama_tied"
    assert facts(workshop.convert(source, target)) == facts(workshop.convert(whole, target))


def test_none_in_place_of_a_weight_of_its_own_is_missing(legacy: Any, workshop: Workshop) -> None:
    source = legacy("llama_mha", "2.0", {"lm_head.weight"})
    assert "lm_head.weight is missing (expected 320 x 48)" in workshop.refusal(source)
