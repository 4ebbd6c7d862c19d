"""Tensors that a program gives are written as a CS checkpoint like any other: the same files, checked, all or none."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

from mmconvert import Checkpoint, Options, api
from mmconvert.dtypes import BY_NAME
from mmconvert.errors import InputRefused, NoConversion, OutputRefused, UsageError
from mmconvert.sources import TensorRef
from tests.tensor_sources import Broken, Growing, Held

Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]
Write = Callable[..., dict[str, Any]]
FLOAT32 = BY_NAME["float32"]


def held(key: str, data: bytes = bytes(range(16)), **changes: Any) -> TensorRef:
    return TensorRef(key, FLOAT32, (len(data) // 4,), changes.get("source", Held(data)))


@pytest.fixture(scope="module")
def converted(llama: Path, tmp_path_factory: pytest.TempPathFactory) -> Checkpoint:
    """The small LLaMA as a CS checkpoint."""
    out = tmp_path_factory.mktemp("converted") / "cs"
    api.convert(llama, out, "cs", fsync=False)
    return api.recognise(out)


@pytest.fixture
def write(converted: Checkpoint, tmp_path: Path) -> Write:
    """`write(**changes)`: the small LLaMA's own tensors, held in memory, written to `tmp_path / "out"`."""

    def write(**changes: Any) -> dict[str, Any]:
        tensors = [TensorRef(each.key, each.dtype, each.shape, Held(each.read())) for each in memory]
        given = {"out": tmp_path / "out", "model": "llama", "section": converted.config, "tensors": tensors}
        return api.write(**{**given, **changes}, fsync=False)

    memory = list(converted.tensors.values())
    return write


def test_the_weights_and_the_config_are_those_of_a_conversion(
    write: Write, converted: Checkpoint, contents: Contents, tmp_path: Path
) -> None:
    write()
    assert contents(tmp_path / "out") == contents(converted.path)
    assert (tmp_path / "out" / "config.yaml").read_bytes() == (converted.path / "config.yaml").read_bytes()
    assert sorted(each.name for each in (tmp_path / "out").iterdir()) == ["config.yaml", "mmconvert.json", "model.mdl"]


def test_what_is_written_goes_home_bit_for_bit(write: Write, llama: Path, contents: Contents, tmp_path: Path) -> None:
    write()
    api.convert(tmp_path / "out", tmp_path / "hf", "hf", fsync=False)
    assert contents(tmp_path / "hf") == contents(llama)


def test_the_folder_is_known_and_verified(
    write: Write, mmconvert: Callable[..., CompletedProcess[str]], tmp_path: Path
) -> None:
    write()
    assert mmconvert("verify", tmp_path / "out").returncode == 0
    said = mmconvert("inspect", tmp_path / "out", "--json")
    assert said.returncode == 0
    assert json.loads(said.stdout)["model"] == "llama"


def test_damage_is_found_afterwards(write: Write, tmp_path: Path) -> None:
    write()
    data = bytearray((tmp_path / "out" / "model.mdl").read_bytes())
    data[-1] ^= 1
    (tmp_path / "out" / "model.mdl").write_bytes(data)
    assert len(api.verify(tmp_path / "out").problems) == 1


def test_the_manifest_says_that_the_source_was_memory(write: Write, tmp_path: Path) -> None:
    manifest = write()
    assert manifest == json.loads((tmp_path / "out" / "mmconvert.json").read_text())
    assert manifest["source"] == {"model": "llama", "format": "memory", "release": None}
    assert manifest["target"] == {"model": "llama", "format": "cs", "release": "2.10"}
    assert {(each["key"] == each["source"], each["rule"]) for each in manifest["tensors"]} == {(True, "copied")}


def test_safetensors_are_cut_into_shards(
    write: Write, converted: Checkpoint, contents: Contents, tmp_path: Path
) -> None:
    write(options=Options(container="safetensors", max_shard_size=20_000))
    assert len(list((tmp_path / "out").glob("model-*.safetensors"))) > 1
    assert contents(tmp_path / "out") == contents(converted.path)


def test_a_section_that_no_schema_knows_is_written_as_it_is(write: Write, tmp_path: Path) -> None:
    images = {"global_image_projection": {"name": "Mine", "size": 1e-5}}
    section = {"name": "multimodal_simple", "image_model_list": images, "text_model": {}}
    write(model="mmsimple-llava", section=section, tensors=[held("mine.weight")])
    found = api.recognise(tmp_path / "out")
    assert (found.node.model, found.node.format, found.config) == ("mmsimple-llava", "cs", section)
    assert found.tensors["mine.weight"].read() == bytes(range(16))
    assert api.verify(tmp_path / "out").problems == []


def test_assets_travel(write: Write, tmp_path: Path) -> None:
    manifest = write(assets={"tokenizer.model": b"pieces", "image_model/config.json": b"{}"})
    assert (tmp_path / "out" / "assets" / "tokenizer.model").read_bytes() == b"pieces"
    assert (tmp_path / "out" / "assets" / "image_model" / "config.json").read_bytes() == b"{}"
    assert manifest["carried"] == ["assets/tokenizer.model", "assets/image_model/config.json"]
    assert api.recognise(tmp_path / "out").sidecars.keys() == {"tokenizer.model"}


@pytest.mark.parametrize("name", ["../stray", "/stray", "text_model/../../stray"])
def test_an_asset_that_would_lie_elsewhere_is_refused(name: str, write: Write, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="an asset lies below assets/"):
        write(assets={name: b""})
    assert list(tmp_path.iterdir()) == []


def test_a_tensor_that_cannot_be_read_leaves_nothing(write: Write, tmp_path: Path) -> None:
    with pytest.raises(InputRefused, match="the tensor is gone"):
        write(tensors=[held("first"), held("second", source=Broken())])
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_folder_as_it_was(write: Write, tmp_path: Path) -> None:
    write(tensors=[held("first")])
    with pytest.raises(InputRefused, match="the tensor is gone"):
        write(tensors=[held("second", source=Broken())], overwrite=True)
    assert [each.name for each in tmp_path.iterdir()] == ["out"]
    assert api.open(tmp_path / "out").keys() == {"first"}


def test_a_folder_is_replaced_only_if_told_to(write: Write, tmp_path: Path) -> None:
    write(tensors=[held("first")])
    with pytest.raises(OutputRefused, match="--overwrite replaces it"):
        write(tensors=[held("second")])
    write(tensors=[held("second")], overwrite=True)
    assert api.open(tmp_path / "out").keys() == {"second"}


def test_the_folder_of_the_tensors_is_not_written_to(converted: Checkpoint) -> None:
    tensors = list(converted.tensors.values())
    with pytest.raises(OutputRefused, match=r"holds the source .*model\.mdl"):
        api.write(converted.path, "llama", converted.config, tensors, overwrite=True, fsync=False)


def test_a_file_that_changes_meanwhile_is_noticed(write: Write, tmp_path: Path) -> None:
    file = tmp_path / "weights"
    file.write_bytes(bytes(16))
    with pytest.raises(InputRefused, match="weights: changed while it was read"):
        write(tensors=[held("first", source=Growing(file))])
    assert list(tmp_path.iterdir()) == [file]


def test_a_key_that_is_given_twice_is_refused(write: Write) -> None:
    with pytest.raises(UsageError, match="second: is given twice"):
        write(tensors=[held("first"), held("second"), held("second")])


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (Options(dtype={"": FLOAT32}), "written as they are given"),
        (Options(init={"projector": 1}), "written as they are given"),
        (Options(max_shard_size=1000), "max_shard_size is for safetensors"),
    ],
)
def test_an_option_without_effect_is_refused(options: Options, why: str, write: Write) -> None:
    with pytest.raises(UsageError, match=why):
        write(options=options)


def test_a_model_that_is_not_known_is_refused(write: Write) -> None:
    with pytest.raises(NoConversion, match="lama"):
        write(model="lama")


def test_an_element_type_that_the_container_cannot_hold_is_refused(write: Write, tmp_path: Path) -> None:
    tensor = TensorRef("w", BY_NAME["float8_e4m3fn"], (16,), Held(bytes(16)))
    with pytest.raises(InputRefused, match=r"w: a \.mdl file cannot hold float8_e4m3fn"):
        write(tensors=[tensor])
    write(tensors=[tensor], options=Options(container="safetensors"))
    assert api.open(tmp_path / "out")["w"].dtype.name == "float8_e4m3fn"
