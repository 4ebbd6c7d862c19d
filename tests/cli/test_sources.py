"""Which folders make a LLaVA: the layouts that users have on their disks, given as they are."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
from safetensors.torch import load_file

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]
CS = ("--container", "safetensors")


def rewrite(config: Path, **fields: Any) -> None:
    config.write_text(json.dumps({**json.loads(config.read_text()), **fields}))


@pytest.fixture
def expected(mmconvert: Run, contents: Contents, llava: Path, tmp_path: Path) -> dict[str, Any]:
    """The small LLaVA in CS, however it was found."""
    assert mmconvert("llava-to-cs", "--src", llava, "--out", tmp_path / "expected", *CS).returncode == 0
    return dict(contents(tmp_path / "expected"))


@pytest.mark.parametrize("tower", ["absolute", "relative", "sibling by name", "sibling by role"])
def test_the_tower_of_a_text_folder_is_found(
    mmconvert: Run, contents: Contents, llava: Path, tmp_path: Path, expected: dict[str, Any], tower: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(llava, source)
    shutil.move(source / "image_model", source / ("image_model" if tower.endswith("role") else "clip-l"))
    name = {
        "absolute": str(source / "clip-l"),
        "relative": "../clip-l",
        "sibling by name": "towers/clip-l",
        "sibling by role": "openai/clip-vit-large-patch14-336",
    }[tower]
    rewrite(source / "text_model_llava" / "config.json", mm_vision_tower=name)
    done = mmconvert("llava-to-cs", "--src", source / "text_model_llava", "--out", tmp_path / "cs", *CS)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "cs") == expected


def test_a_tower_far_away_is_named(
    mmconvert: Run, contents: Contents, llava: Path, clip: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    text = tmp_path / "text"
    shutil.copytree(llava / "text_model_llava", text)
    done = mmconvert("llava-to-cs", "--src", text, "--out", tmp_path / "cs", *CS)
    assert done.returncode == 3
    assert "--vision-tower" in done.stderr
    assert "--vision-tower" in done.stderr
    done = mmconvert("llava-to-cs", "--src", text, "--vision-tower", clip, "--out", tmp_path / "cs", *CS)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "cs") == expected


def test_folders_are_known_by_their_configs_not_their_names(
    mmconvert: Run, contents: Contents, make_llava: Make, tmp_path: Path, expected: dict[str, Any]
) -> None:
    make_llava(tmp_path / "source", names=("b", "a"))
    assert mmconvert("llava-to-cs", "--src", tmp_path / "source", "--out", tmp_path / "cs", *CS).returncode == 0
    assert contents(tmp_path / "cs") == expected


@pytest.fixture
def lmsys(make_llava: Make, tmp_path: Path) -> Path:
    """LLaVA's config as `config.json`, and the language model's own beside it as `config_lmsys.json`."""
    source = make_llava(tmp_path / "source", names=("image_model", "text_model"))
    text = source / "text_model"
    config = json.loads((text / "config.json").read_text())
    own = {name: value for name, value in config.items() if not name.startswith("mm_")}
    own |= {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    (text / "config_lmsys.json").write_text(json.dumps(own))
    del config["rms_norm_eps"]  # said by the other file only
    (text / "config.json").write_text(json.dumps(config))
    return source


def test_a_language_models_own_config_fills_in_what_llavas_leaves_out(
    mmconvert: Run, contents: Contents, lmsys: Path, tmp_path: Path, expected: dict[str, Any]
) -> None:
    done = mmconvert("hf-to-cs", "--src", lmsys, "--out", tmp_path / "cs", *CS)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "cs") == expected
    assert "layer_norm_epsilon: 1.0e-05" in (tmp_path / "cs" / "config.yaml").read_text()
    assert (tmp_path / "cs" / "assets" / "text_model" / "config_lmsys.json").is_file()


def test_two_configs_that_disagree_are_refused_naming_both(mmconvert: Run, lmsys: Path, tmp_path: Path) -> None:
    rewrite(lmsys / "text_model" / "config_lmsys.json", hidden_size=64)
    done = mmconvert("hf-to-cs", "--src", lmsys, "--out", tmp_path / "cs")
    assert done.returncode == 3
    for word in ("text_model/config.json", "config_lmsys.json", "hidden_size", "48", "64"):
        assert word in done.stderr


@pytest.mark.parametrize(
    ("llavas", "own", "agree"),
    [
        ({"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}}, {"factor": 2.0}, True),
        ({"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}, {"factor": 2.0}, False),
        ({"rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}, {"factor": 2.0}, False),
        ({"rope_scaling": {"type": "linear", "factor": 4.0}}, {"factor": 2.0}, False),
    ],
)
def test_the_scaling_of_positions_must_agree_in_whatever_words(
    mmconvert: Run, lmsys: Path, tmp_path: Path, llavas: dict[str, Any], own: dict[str, Any], agree: bool
) -> None:
    rewrite(lmsys / "text_model" / "config.json", **llavas)
    rewrite(lmsys / "text_model" / "config_lmsys.json", rope_scaling={"type": "linear", **own})
    done = mmconvert("hf-to-cs", "--src", lmsys, "--out", tmp_path / "cs")
    assert done.returncode == (0 if agree else 3), done.stderr
    assert agree == ("rope_scaling" not in done.stderr)


@pytest.mark.parametrize("llavas", [{"rope_scaling": {"type": "linear", "factor": 4.0}}, {"rope_theta": 5e5}])
def test_neither_transformers_words_overrule_the_others(
    mmconvert: Run, lmsys: Path, tmp_path: Path, llavas: dict[str, Any]
) -> None:
    own = {"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}
    rewrite(lmsys / "text_model" / "config.json", **llavas)
    rewrite(lmsys / "text_model" / "config_lmsys.json", rope_parameters=own)
    done = mmconvert("hf-to-cs", "--src", lmsys, "--out", tmp_path / "cs")
    assert done.returncode == 3
    assert next(iter(llavas)) in done.stderr


def test_a_tower_and_a_plain_llama_need_a_projector_only(
    mmconvert: Run, make_llama: Make, make_clip: Make, tmp_path: Path
) -> None:
    make_clip(tmp_path / "source" / "clip-vit-large-patch14-336")
    make_llama(tmp_path / "source" / "vicuna-7b-v1.5")
    arguments = ("--src", tmp_path / "source", "--out", tmp_path / "cs", *CS)
    assert mmconvert("hf-to-cs", *arguments).returncode == 3
    done = mmconvert("hf-to-cs", *arguments, "--init", "projector=uniform:1")
    assert (done.returncode, done.stderr) == (0, "")
    assert mmconvert("verify", tmp_path / "source", tmp_path / "cs").returncode == 0


def test_two_towers_are_one_too_many(mmconvert: Run, llava: Path, tmp_path: Path) -> None:
    shutil.copytree(llava, tmp_path / "source")
    shutil.copytree(llava / "image_model", tmp_path / "source" / "image_model_old")
    done = mmconvert("llava-to-cs", "--src", tmp_path / "source", "--out", tmp_path / "cs")
    assert done.returncode == 3
    assert "2 folders for image_model (image_model, image_model_old)" in done.stderr


# --- a tower that is named ------------------------------------------------------------------------------------------


@pytest.fixture
def hub(clip: Path, tmp_path: Path) -> Path:
    """The tower as the hub's cache has it: links into blobs."""
    cache = tmp_path / "hub" / "models--openai--clip"
    for folder in (cache / "blobs", cache / "snapshots" / "0123"):
        folder.mkdir(parents=True)
    for file in clip.iterdir():
        shutil.copy(file, cache / "blobs" / f"blob-of-{file.name}")
        (cache / "snapshots" / "0123" / file.name).symlink_to(f"../../blobs/blob-of-{file.name}")
    return cache


@pytest.mark.parametrize("given", ["both folders", "both folders, without a tower", "the text folder"])
def test_a_tower_may_be_named_by_its_folder_in_the_hubs_cache(
    mmconvert: Run, contents: Contents, llava: Path, hub: Path, tmp_path: Path, expected: dict[str, Any], given: str
) -> None:
    source = tmp_path / "source"
    shutil.copytree(llava, source)
    if given == "both folders":
        rewrite(source / "image_model" / "config.json", num_hidden_layers=9)
    else:
        shutil.rmtree(source / "image_model")
    src = source / "text_model_llava" if given == "the text folder" else source
    done = mmconvert("llava-to-cs", "--src", src, "--vision-tower", hub, "--out", tmp_path / "cs", *CS)
    assert (done.returncode, done.stderr) == (0, "")
    assert contents(tmp_path / "cs") == expected


@pytest.mark.parametrize("below", [".", "text_model_llava"])
@pytest.mark.parametrize("wrong", ["a LLaVA", "a LLaMA", "nothing"])
def test_a_folder_that_is_no_tower_is_refused_as_one(
    mmconvert: Run, llava: Path, llama: Path, tmp_path: Path, below: str, wrong: str
) -> None:
    named = {"a LLaVA": llava / "text_model_llava", "a LLaMA": llama, "nothing": tmp_path}[wrong]
    done = mmconvert("llava-to-cs", "--src", llava / below, "--vision-tower", named, "--out", tmp_path / "cs")
    assert done.returncode == 3
    assert f"{named}: --vision-tower names no image_model" in done.stderr
    assert not (tmp_path / "cs").exists()


# --- a tower saved inside the text checkpoint -----------------------------------------------------------------------

INSIDE = "model.vision_tower.vision_tower."


@pytest.fixture
def two_towers(make_llava: Make, llava: Path, tmp_path: Path) -> Callable[..., Path]:
    """A LLaVA whose text checkpoint holds a tower too: the same one, or one in which a value differs."""

    def make(*, same: bool, flag: bool) -> Path:
        tower = load_file(llava / "image_model" / "model.safetensors")
        del tower["visual_projection.weight"]
        if not same:
            tower["vision_model.post_layernorm.bias"] += 1

        def add(tensors: dict[str, Any]) -> None:
            tensors |= {INSIDE + key: tensor for key, tensor in tower.items()}

        return make_llava(tmp_path / "source", edit=add, unfreeze_mm_vision_tower=flag)

    return make


def test_a_tower_that_was_trained_is_taken_from_the_text_checkpoint(
    mmconvert: Run, contents: Contents, two_towers: Callable[..., Path], tmp_path: Path, expected: dict[str, Any]
) -> None:
    source = two_towers(same=False, flag=True)
    assert mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", *CS).returncode == 0
    found = contents(tmp_path / "cs")
    changed = {key for key in expected if found[key] != expected[key]}
    assert changed == {"image_model.image_model_list.0.0.encoder.transformer_encoder.norm.bias"}


def test_a_second_copy_of_the_same_tower_is_left_behind(
    mmconvert: Run, contents: Contents, two_towers: Callable[..., Path], tmp_path: Path, expected: dict[str, Any]
) -> None:
    source = two_towers(same=True, flag=False)
    assert mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", *CS).returncode == 0
    assert contents(tmp_path / "cs") == expected


def test_two_towers_that_differ_need_a_word(
    mmconvert: Run, contents: Contents, two_towers: Callable[..., Path], tmp_path: Path, expected: dict[str, Any]
) -> None:
    arguments = ("--src", two_towers(same=False, flag=False), "--out", tmp_path / "cs", *CS)
    done = mmconvert("llava-to-cs", *arguments)
    assert done.returncode == 3
    assert "vision_model.post_layernorm.bias: differs" in done.stderr
    assert "--tower text or --tower image" in done.stderr
    assert not (tmp_path / "cs").exists()
    assert mmconvert("llava-to-cs", *arguments, "--tower", "image").returncode == 0
    assert contents(tmp_path / "cs") == expected


@pytest.mark.parametrize("options", [(), ("--tower", "text")])
def test_a_trained_tower_that_is_not_there_is_refused(
    mmconvert: Run, make_llava: Make, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source = make_llava(tmp_path / "source", unfreeze_mm_vision_tower=not options)
    done = mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", *options)
    assert done.returncode == 3
    assert f"the checkpoint holds no text_model/{INSIDE}*" in done.stderr


def test_exports_put_the_tower_into_its_folder_and_the_flag_to_false(
    mmconvert: Run, two_towers: Callable[..., Path], tmp_path: Path
) -> None:
    source = two_towers(same=False, flag=True)
    mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", *CS)
    assert mmconvert("cs-to-llava", "--src", tmp_path / "cs", "--out", tmp_path / "back").returncode == 0
    config = json.loads((tmp_path / "back" / "text_model_llava" / "config.json").read_text())
    assert config["unfreeze_mm_vision_tower"] is False
    assert mmconvert("verify", source, tmp_path / "back").returncode == 0
