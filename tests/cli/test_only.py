"""One part of a multimodal model, written alone with --only: what is in its folder, who reads it, what is refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, CLIPVisionModel

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
GOLDEN = Path(__file__).parents[1] / "golden"
ABSOLUTE = ("--tower-path", "absolute")
PROJECTOR = {f"model.mm_projector.{layer}.{name}" for layer in (0, 2) for name in ("weight", "bias")}


def files(folder: Path) -> set[str]:
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}


def config(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def strangers(kind: Any, folder: Path) -> list[str]:
    """The keys that transformers misses in a folder, or does not expect there."""
    _, info = kind.from_pretrained(folder, output_loading_info=True)
    return [*info["missing_keys"], *info["unexpected_keys"]]


@pytest.fixture
def take(mmconvert: Run, tmp_path: Path) -> Callable[..., Path]:
    """`take("llava-to-hf", src, "vision", *options)` gives the part's folder, compared with its source."""

    def run(command: str, src: Path, part: str, *options: object) -> Path:
        out = tmp_path / f"{command}-{part}{len(list(tmp_path.iterdir()))}"
        done = mmconvert(command, "--src", src, "--out", out, "--only", part, *options)
        assert done.returncode == 0, done.stderr
        assert mmconvert("verify", src, out).returncode == 0
        assert mmconvert("verify", out).returncode == 0
        return out

    return run


@pytest.fixture
def cs(mmconvert: Run, llava: Path, tmp_path: Path) -> Path:
    done = mmconvert("llava-to-cs", "--src", llava, "--out", tmp_path / "cs", "--container", "safetensors")
    assert done.returncode == 0, done.stderr
    return tmp_path / "cs"


@pytest.mark.parametrize("command", ["cs-to-hf", "cs-to-llava"])
def test_a_tower_alone_is_a_folder_that_transformers_loads(take: Callable[..., Path], cs: Path, command: str) -> None:
    out = take(command, cs, "vision")
    assert files(out) == {"README.md", "config.json", "mmconvert.json", "model.safetensors", "preprocessor_config.json"}
    assert strangers(CLIPVisionModel, out) == []


def test_a_language_model_alone_has_nothing_of_llava_s(take: Callable[..., Path], llava: Path) -> None:
    out = take("llava-to-hf", llava, "text")
    said = config(out)
    assert (said["model_type"], said["architectures"]) == ("llama", ["LlamaForCausalLM"])
    assert not [name for name in said if name.startswith(("mm_", "image_", "tune_mm_"))]
    assert (out / "tokenizer.model").is_file()
    assert strangers(AutoModelForCausalLM, out) == []


def test_a_mistral_alone_stays_one(take: Callable[..., Path], make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "mistral", model_type="llava_mistral", sliding_window=16)
    assert config(take("llava-to-hf", source, "text"))["model_type"] == "mistral"


def test_a_projector_alone_is_what_llava_s_trainer_saves(take: Callable[..., Path], cs: Path, llava: Path) -> None:
    out = take("cs-to-llava", cs, "projector", "--tower-path", "openai/clip-vit-large-patch14-336")
    assert files(out) == {"README.md", "config.json", "mm_projector.bin", "mmconvert.json"}
    found = torch.load(out / "mm_projector.bin", weights_only=True)
    source = load_file(llava / "text_model_llava" / "model.safetensors")
    assert found.keys() == PROJECTOR
    assert all(torch.equal(found[key], source[key]) for key in PROJECTOR)
    said = config(out)
    assert said["model_type"] == "llava_llama"
    assert said["mm_projector_type"] == "mlp2x_gelu"
    assert said["mm_vision_tower"] == "openai/clip-vit-large-patch14-336"


def test_a_projector_alone_may_be_safetensors(take: Callable[..., Path], llava: Path) -> None:
    out = take("llava-to-hf", llava, "projector", "--container", "safetensors", "--dtype", "fp32")
    found = load_file(out / "mm_projector.safetensors")
    assert found.keys() == PROJECTOR
    assert {tensor.dtype for tensor in found.values()} == {torch.float32}


def test_where_its_tower_will_stand_is_asked_for(mmconvert: Run, llava: Path, tmp_path: Path) -> None:
    done = mmconvert("llava-to-hf", "--src", llava, "--out", tmp_path / "out", "--only", "projector")
    assert done.returncode == 0
    assert "mm_vision_tower is ../image_model in its config: --tower-path says" in done.stderr


def test_a_tower_that_was_trained_is_the_one_that_comes(take: Callable[..., Path], tmp_path: Path) -> None:
    source = GOLDEN / "llava/tiny_src_tower_tuned"
    out = take("llava-to-hf", source, "vision")
    inside = load_file(source / "text_model_llava/model.safetensors")
    prefix = "model.vision_tower.vision_tower."
    tuned = {key.removeprefix(prefix): tensor for key, tensor in inside.items() if key.startswith(prefix)}
    found = load_file(out / "model.safetensors")
    assert found.keys() == tuned.keys()
    assert all(torch.equal(found[key], tuned[key]) for key in tuned)


def test_two_towers_that_differ_do_not_matter_to_the_text(
    take: Callable[..., Path], make_llava: Make, tmp_path: Path
) -> None:
    source = make_llava(tmp_path / "two")
    text, tower = source / "text_model_llava/model.safetensors", load_file(source / "image_model/model.safetensors")
    inside = {f"model.vision_tower.vision_tower.{key}": tensor + 1 for key, tensor in tower.items() if "vision" in key}
    save_file({**load_file(text), **inside}, text, {"format": "pt"})
    assert "model.vision_tower" not in str(load_file(take("llava-to-hf", source, "text") / "model.safetensors").keys())


def test_a_part_comes_in_shards_too(take: Callable[..., Path], llava: Path) -> None:
    out = take("llava-to-hf", llava, "text", "--max-shard-size", "40kB")
    assert "model.safetensors.index.json" in files(out)


def test_one_changed_value_in_a_part_is_found(take: Callable[..., Path], mmconvert: Run, llava: Path) -> None:
    out = take("llava-to-hf", llava, "projector", "--container", "safetensors")
    tensors = load_file(out / "mm_projector.safetensors")
    tensors["model.mm_projector.2.bias"][3] += 1
    save_file(tensors, out / "mm_projector.safetensors", {"format": "pt"})
    done = mmconvert("verify", llava, out)
    assert done.returncode == 6
    assert "model.mm_projector.2.bias: differs from A's" in done.stdout + done.stderr


def test_a_changed_config_of_a_part_is_found(take: Callable[..., Path], mmconvert: Run, llava: Path) -> None:
    out = take("llava-to-hf", llava, "text")
    (out / "config.json").write_text(json.dumps({**config(out), "rms_norm_eps": 1e-6}))
    done = mmconvert("verify", llava, out)
    assert done.returncode == 6
    assert "config: rms_norm_eps is 1e-06, expected 1e-05" in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("command", "options", "said"),
    [
        ("llava-to-cs", ("--only", "text"), "--only is for Hugging Face and LLaVA targets"),
        ("llava-to-hf", ("--only", "text", "--layout", "llava-hf"), "--layout components"),
        ("llava-to-hf", ("--only", "text", "--tower-path", "relative"), "--tower-path is for targets"),
        ("llava-to-hf", ("--only", "text", "--container", "bin"), "--container bin is for a projector alone"),
        ("llava-to-hf", ("--only", "vision", "--verify", "forward"), "--verify forward computes with whole models"),
        ("llava-to-hf", ("--only", "vision", "--dtype", "text=bf16"), "this model's parts are vision"),
        ("llava-to-hf", ("--only", "vision", "--tokenizer", "."), "--tokenizer: the vision has none"),
        ("llava-to-hf", ("--only", "projector", "--tokenizer", "."), "--tokenizer: the projector has none"),
        ("llava-to-hf", ("--only", "projector", "--max-shard-size", "1KB"), "--max-shard-size is for safetensors"),
        ("llava-to-hf", ("--only", "text", "--tower", "text"), "--tower is for the vision tower"),
    ],
)
def test_what_has_no_sense_with_it_is_refused(
    mmconvert: Run, llava: Path, tmp_path: Path, command: str, options: tuple[str, ...], said: str
) -> None:
    done = mmconvert(command, "--src", llava, "--out", tmp_path / "out", *options)
    assert done.returncode == 2
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_model_of_one_part_has_none_to_take_out(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    cs = tmp_path / "cs"
    assert mmconvert("hf-to-cs", "--src", llama, "--out", cs).returncode == 0
    done = mmconvert("cs-to-hf", "--src", cs, "--out", tmp_path / "out", "--only", "text")
    assert done.returncode == 2
    assert "--only takes a part out of a multimodal model; this is a llama" in done.stderr


@pytest.mark.parametrize("container", ["bin", "safetensors"])
def test_a_projector_alone_is_no_checkpoint_to_convert(
    take: Callable[..., Path], mmconvert: Run, llava: Path, tmp_path: Path, container: str
) -> None:
    out = take("llava-to-hf", llava, "projector", "--container", container)
    done = mmconvert("llava-to-cs", "--src", out, "--out", tmp_path / "cs2")
    assert done.returncode == 3
    assert "only a projector" in done.stderr


def test_relative_is_beside_and_absolute_has_no_place(
    take: Callable[..., Path], mmconvert: Run, llava: Path, tmp_path: Path
) -> None:
    out = take("llava-to-hf", llava, "projector", "--tower-path", "relative")
    assert config(out)["mm_vision_tower"] == "../image_model"
    done = mmconvert("llava-to-hf", "--src", llava, "--out", tmp_path / "no", "--only", "projector", *ABSOLUTE)
    assert done.returncode == 2
    assert "no tower is written beside the projector" in done.stderr


@pytest.mark.parametrize("part", ["vision", "projector", "text"])
def test_a_part_equals_what_it_came_from_by_whatever_way(
    take: Callable[..., Path], mmconvert: Run, tmp_path: Path, part: str
) -> None:
    joined = tmp_path / "joined"
    source = GOLDEN / "llava/tiny_src"
    assert mmconvert("llava-to-hf", "--src", source, "--out", joined).returncode == 0
    out = take("hf-to-llava", joined, part)
    assert mmconvert("verify", source, out).returncode == 0


@pytest.mark.parametrize("said", ["x", True, ["a"], {"a": 1}, 3])
def test_a_manifest_that_lies_about_the_part_is_no_trap(
    take: Callable[..., Path], mmconvert: Run, llava: Path, said: object
) -> None:
    out = take("llava-to-hf", llava, "text")
    manifest = json.loads((out / "mmconvert.json").read_text())
    manifest["options"]["only"] = said
    (out / "mmconvert.json").write_text(json.dumps(manifest))
    done = mmconvert("verify", llava, out)
    assert done.returncode in (2, 3, 4, 6)
    assert "Traceback" not in done.stderr
