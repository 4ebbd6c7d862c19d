"""The conversions on the command line: every command, every container, there and back."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import torch
import yaml

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]
Convert = Callable[..., Path]
# Quicker to read back than a .mdl, which a process of its own opens.
QUICK = ("--container", "safetensors")


@pytest.fixture
def convert(mmconvert: Run) -> Convert:
    """`convert("hf-to-cs", src, out, *options)` gives `out`, or fails the test."""

    def run(command: str, src: Path, out: Path, *options: object) -> Path:
        done = mmconvert(*command.split(), "--src", src, "--out", out, *options)
        assert (done.returncode, done.stderr) == (0, "")
        return out

    return run


def files(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def test_the_installed_command_takes_a_llava_to_cs_and_back(shell: Run, llava: Path, tmp_path: Path) -> None:
    there = shell("llava-to-cs", "--src", llava, "--out", tmp_path / "cs")
    assert (there.returncode, there.stderr) == (0, "")
    assert there.stdout.startswith(f"{tmp_path / 'cs'}: 81 tensors")
    back = shell("cs-to-llava", "--src", tmp_path / "cs", "--out", tmp_path / "back")
    assert (back.returncode, back.stderr) == (0, "")
    assert shell("verify", llava, tmp_path / "back").returncode == 0


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
@pytest.mark.parametrize("model", ["llama", "mistral", "clip"])
def test_a_model_comes_back_from_cs_as_it_was(
    convert: Convert, contents: Contents, request: pytest.FixtureRequest, tmp_path: Path, model: str, container: str
) -> None:
    source: Path = request.getfixturevalue(model)
    cs = convert("hf-to-cs", source, tmp_path / "cs", "--container", container)
    back = convert("cs-to-hf", cs, tmp_path / "back")
    assert contents(back) == contents(source)
    config, original = (json.loads((folder / "config.json").read_text()) for folder in (back, source))
    assert original.items() <= config.items()


@pytest.fixture
def mistral(make_llama: Make, tmp_path: Path) -> Path:
    names = {"model_type": "mistral", "architectures": ["MistralForCausalLM"]}
    return make_llama(tmp_path / "mistral", **names, sliding_window=16)


def test_a_cs_folder_holds_weights_config_assets_and_manifest(convert: Convert, llama: Path, tmp_path: Path) -> None:
    found = files(convert("hf-to-cs", llama, tmp_path / "cs"))
    assert set(found) == {"model.mdl", "config.yaml", "assets/config.json", "assets/tokenizer.model", "mmconvert.json"}
    assert found["assets/tokenizer.model"] == (llama / "tokenizer.model").read_bytes()
    assert found["assets/config.json"] == (llama / "config.json").read_bytes()
    model = yaml.safe_load(found["config.yaml"])["model"]
    assert (model["name"], model["num_heads"], model["rotary_dim"]) == ("llama", 4, 12)
    manifest = json.loads(found["mmconvert.json"])
    assert manifest["source"] == {"model": "llama", "format": "hf", "release": None}
    assert manifest["target"] == {"model": "llama", "format": "cs", "release": "2.10"}


def test_a_llava_export_is_two_folders_with_the_tower_by_absolute_path(
    convert: Convert, llava: Path, tmp_path: Path
) -> None:
    cs = convert("llava-to-cs", llava, tmp_path / "cs", *QUICK)
    back = convert("cs-to-llava", cs, tmp_path / "back")
    assert {name.partition("/")[0] for name in files(back)} == {
        "image_model",
        "text_model_llava",
        "README.md",
        "mmconvert.json",
    }
    config = json.loads((back / "text_model_llava" / "config.json").read_text())
    assert config["mm_vision_tower"] == str(back / "image_model")
    assert config["mm_use_im_patch_token"] is False
    assert (back / "text_model_llava" / "tokenizer.model").is_file()
    assert (back / "image_model" / "preprocessor_config.json").is_file()


def test_a_mistral_llava_is_exported_under_the_name_that_its_loader_goes_by(
    convert: Convert, make_llava: Make, mmconvert: Run, tmp_path: Path
) -> None:
    names = {"model_type": "llava_mistral", "architectures": ["LlavaMistralForCausalLM"]}
    source = make_llava(tmp_path / "llava", **names, sliding_window=16)
    cs = convert("llava-to-cs", source, tmp_path / "cs", *QUICK)
    done = mmconvert("cs-to-llava", "--src", cs, "--out", tmp_path / "back")
    assert done.returncode == 0
    assert "tokenizer_config.json is missing: LLaVA loads a Mistral's tokenizer by it" in done.stderr
    config = json.loads((tmp_path / "back" / "text_model_llava_mistral" / "config.json").read_text())
    assert config["model_type"] == "llava_mistral"


def test_an_export_without_a_tokenizer_warns_that_llava_needs_one(
    mmconvert: Run, convert: Convert, make_llava: Make, tmp_path: Path
) -> None:
    source = make_llava(tmp_path / "llava")
    (source / "text_model_llava" / "tokenizer.model").unlink()
    cs = convert("llava-to-cs", source, tmp_path / "cs", *QUICK)
    done = mmconvert("cs-to-llava", "--src", cs, "--out", tmp_path / "back")
    assert done.returncode == 0
    assert "warning: text_model_llava/tokenizer.model is missing" in done.stderr
    assert "--tokenizer" in done.stderr


def test_a_llava_comes_apart_into_folders_for_transformers(
    convert: Convert, contents: Contents, llava: Path, tmp_path: Path
) -> None:
    cs = convert("llava-to-cs", llava, tmp_path / "cs", *QUICK)
    parts = convert("cs-to-hf", cs, tmp_path / "parts")
    assert {name.partition("/")[0] for name in files(parts)} == {
        "image_model",
        "text_model",
        "README.md",
        "mmconvert.json",
    }
    text = json.loads((parts / "text_model" / "config.json").read_text())
    assert (text["model_type"], text["architectures"]) == ("llama", ["LlamaForCausalLM"])
    again = convert("hf-to-cs", parts, tmp_path / "again", *QUICK)
    assert contents(again) == contents(cs)


def test_convert_goes_any_way_that_a_path_leads(
    convert: Convert, contents: Contents, llava: Path, tmp_path: Path
) -> None:
    parts = convert("convert --to hf", llava, tmp_path / "parts")
    manifest = json.loads((parts / "mmconvert.json").read_text())
    assert manifest["path"] == ["mmsimple-llava: llava -> cs", "mmsimple-llava: cs -> hf"]
    before, after = contents(llava), contents(parts)
    assert after.items() <= before.items()
    assert before.keys() - after.keys() == {"image_model/visual_projection.weight"}


def test_the_release_decides_whether_the_model_is_named(
    convert: Convert, contents: Contents, llama: Path, tmp_path: Path
) -> None:
    new = convert("hf-to-cs", llama, tmp_path / "new", *QUICK)
    old = convert("hf-to-cs --to-release 2.3", llama, tmp_path / "old", *QUICK)
    assert contents(old) == contents(new)
    assert "name" not in yaml.safe_load((old / "config.yaml").read_text())["model"]
    assert yaml.safe_load((new / "config.yaml").read_text())["model"]["name"] == "llama"


@pytest.mark.parametrize(
    ("container", "shards", "dtype"),
    [("safetensors", 1, "float32"), ("bin", 1, "float16"), ("bin", 3, "bfloat16")],
)
def test_the_container_of_the_source_makes_no_difference(
    convert: Convert, contents: Contents, make_llama: Make, tmp_path: Path, container: str, shards: int, dtype: str
) -> None:
    kind: torch.dtype = getattr(torch, dtype)
    reference = make_llama(tmp_path / "reference", dtype=kind)
    source = make_llama(tmp_path / "source", dtype=kind, container=container, shards=shards)
    expected = contents(convert("hf-to-cs", reference, tmp_path / "a", *QUICK))
    assert contents(convert("hf-to-cs", source, tmp_path / "b", *QUICK)) == expected
    assert {each[0] for each in expected.values()} == {dtype}


@pytest.mark.parametrize(("command", "model"), [("hf-to-cs", "llama"), ("convert --to hf", "llava")])
def test_large_targets_are_sharded_with_an_index(
    convert: Convert, contents: Contents, request: pytest.FixtureRequest, tmp_path: Path, command: str, model: str
) -> None:
    source: Path = request.getfixturevalue(model)
    options = () if command.endswith("hf") else QUICK
    whole = convert(command, source, tmp_path / "whole", *options)
    shards = convert(command, source, tmp_path / "shards", *options, "--max-shard-size", "30kB")
    assert contents(shards) == contents(whole)
    assert not list(whole.rglob("*index*"))
    assert not list(shards.rglob("model.safetensors"))
    for index in shards.rglob("model.safetensors.index.json"):
        names = set(json.loads(index.read_text())["weight_map"].values())
        assert names == {path.name for path in index.parent.glob("*.safetensors")}
        assert len(names) > 2


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
def test_the_same_input_gives_the_same_bytes_at_any_time_and_place(
    convert: Convert, llama: Path, tmp_path: Path, container: str
) -> None:
    first = convert("hf-to-cs", llama, tmp_path / "first", "--container", container)
    time.sleep(1.1)  # file times are told in seconds
    second = convert("hf-to-cs", llama, tmp_path / "elsewhere" / "second", "--container", container)
    assert files(first) == files(second)


def test_only_the_path_of_the_tower_tells_two_exports_apart(convert: Convert, llava: Path, tmp_path: Path) -> None:
    cs = convert("llava-to-cs", llava, tmp_path / "cs", *QUICK)
    exports = [convert("cs-to-llava", cs, tmp_path / name) for name in ("one", "two")]
    one, two = map(files, exports)
    assert {name for name in one if one[name] != two[name]} == {"text_model_llava/config.json", "mmconvert.json"}
    relative = [convert("cs-to-llava", cs, tmp_path / f"{n}r", "--tower-path", "relative") for n in "ab"]
    assert files(relative[0]) == files(relative[1])


# --- memory ---------------------------------------------------------------------------------------------------------

# Runs a command and prints the most memory that it, or a process of its own, has had, in kB (in bytes on macOS).
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True, stdout=subprocess.DEVNULL)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss // (1024 if sys.platform == "darwin" else 1))
"""


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
def test_memory_does_not_grow_with_the_checkpoint(
    script: Path, make_llama: Make, tmp_path: Path, container: str
) -> None:
    sizes = {"hidden_size": 512, "intermediate_size": 4096, "num_hidden_layers": 10}
    source = make_llama(tmp_path / "large", dtype=torch.float32, vocab_size=16000, **sizes)
    command: list[str | Path] = [
        script,
        "hf-to-cs",
        "--src",
        source,
        "--out",
        tmp_path / "cs",
        "--container",
        container,
        "--no-fsync",
    ]
    measured = subprocess.run([sys.executable, "-c", MEASURE, *command], capture_output=True, text=True, check=True)
    nbytes = (source / "model.safetensors").stat().st_size
    assert nbytes > 300e6
    assert int(measured.stdout) * 1024 < nbytes / 3
