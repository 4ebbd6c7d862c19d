"""LLaVA-like folders with something of their own: what is taken along, what settles a doubt, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
GOLDEN = Path(__file__).parents[1] / "golden/llava"


def change(file: Path, **fields: Any) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **fields}))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    return Path(shutil.copytree(GOLDEN / "tiny_src", tmp_path / "source"))


@pytest.fixture
def refused(mmconvert: Run, tmp_path: Path) -> Callable[..., str]:
    """Why a conversion is refused, in at most two lines, and with nothing left."""

    def run(command: str, src: Path, *options: str) -> str:
        done = mmconvert(command, "--src", src, "--out", tmp_path / "out", *options)
        assert done.returncode == 3
        assert len(done.stderr.splitlines()) <= 2
        assert not (tmp_path / "out").exists()
        return done.stderr

    return run


def test_a_list_of_layers_is_refused_by_name(refused: Callable[..., str], source: Path) -> None:
    change(source / "text_model_llava/config.json", mm_vision_select_layer=[-2, -5])
    said = refused("llava-to-hf", source)
    assert "mm_vision_select_layer is a list" in said
    assert "keep this model in LLaVA's own layout" in said


def test_a_projector_without_biases_has_no_place_in_llava(refused: Callable[..., str], tmp_path: Path) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tiny_llava_hf", tmp_path / "bare"))
    change(folder / "config.json", multimodal_projector_bias=False)
    assert "multimodal_projector_bias in llava-hf), and LLaVA's projector has biases" in refused("hf-to-llava", folder)


def test_a_tower_that_is_said_to_be_inside_may_be_taken_from_beside(
    refused: Callable[..., str], mmconvert: Run, source: Path, tmp_path: Path
) -> None:
    change(source / "text_model_llava/config.json", unfreeze_mm_vision_tower=True)
    assert "--tower image takes what lies beside it" in refused("llava-to-hf", source)
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "out", "--tower", "image")
    assert done.returncode == 0, done.stderr


def test_a_pad_token_of_another_id_is_left_to_the_language_model(mmconvert: Run, source: Path, tmp_path: Path) -> None:
    text = source / "text_model_llava"
    for file in (text / "tokenizer_config.json", text / "special_tokens_map.json"):
        file.unlink()
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "plain")
    assert done.returncode == 0, done.stderr
    tokenizer = json.loads((tmp_path / "plain/tokenizer.json").read_text())
    tokenizer["model"]["vocab"]["<pad>"] = tokenizer["model"]["vocab"].pop("▁t")
    tokenizer["model"]["merges"] = []
    tokenizer["added_tokens"] = [each for each in tokenizer["added_tokens"] if each["id"] < 320]
    (text / "tokenizer.json").write_text(json.dumps(tokenizer))
    (text / "tokenizer.model").unlink()
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "padded")
    assert done.returncode == 0, done.stderr
    added = {
        each["content"]: each["id"]
        for each in json.loads((tmp_path / "padded/tokenizer.json").read_text())["added_tokens"]
    }
    assert (added["<image>"], added["[PAD]"]) == (320, 321)
    assert json.loads((tmp_path / "padded/tokenizer_config.json").read_text())["pad_token"] == "[PAD]"
    assert mmconvert("hf-to-llava", "--src", tmp_path / "padded", "--out", tmp_path / "back").returncode == 0


def test_a_licence_of_the_whole_stands_beside_its_parts_again(mmconvert: Run, source: Path, tmp_path: Path) -> None:
    (source / "LICENSE").write_text("of the whole")
    (source / "text_model_llava/LICENSE").write_text("of the language model")
    for command, src, out in (("llava-to-hf", source, "hf"), ("hf-to-cs", "hf", "cs"), ("cs-to-llava", "cs", "back")):
        done = mmconvert(command, "--src", tmp_path / src, "--out", tmp_path / out)
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "hf/LICENSE").read_text() == "of the language model"
    assert (tmp_path / "hf/LICENSE.whole").read_text() == "of the whole"
    assert (tmp_path / "cs/assets/LICENSE").read_text() == "of the whole"
    assert (tmp_path / "back/LICENSE").read_text() == "of the whole"
    assert (tmp_path / "back/text_model_llava/LICENSE").read_text() == "of the language model"


def test_a_tokenizer_may_be_given_from_a_hubs_cache(mmconvert: Run, source: Path, tmp_path: Path) -> None:
    cache = tmp_path / "models--lmsys--vicuna"
    shutil.copytree(source / "text_model_llava", cache / "snapshots/abc")
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "out", "--tokenizer", cache)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out/tokenizer.json").is_file()


@pytest.mark.parametrize("to", ["llava", "hf", "llava-hf", "cs"])
def test_a_drawn_model_has_the_type_that_its_config_says(mmconvert: Run, tmp_path: Path, to: str) -> None:
    folder = Path(shutil.copytree(GOLDEN / "tiny_llava_hf", tmp_path / "config"))
    change(folder / "config.json", dtype="float16")
    done = mmconvert(
        "synth", "mmsimple-llava", "--config", folder / "config.json", "--as", to, "--out", tmp_path / "out"
    )
    assert done.returncode == 0, done.stderr
    types = {each["dtype"] for each in json.loads((tmp_path / "out/mmconvert.json").read_text())["tensors"]}
    assert types == {"float16"}


def test_a_tower_that_lies_elsewhere_is_named_to_every_command(
    refused: Callable[..., str], mmconvert: Run, source: Path, tmp_path: Path
) -> None:
    text, tower = source / "text_model_llava", tmp_path / "elsewhere"
    (source / "image_model").rename(tower)
    assert "name its folder with --vision-tower" in refused("llava-to-hf", text)
    named = ("--vision-tower", tower)
    assert mmconvert("llava-to-hf", "--src", text, "--out", tmp_path / "joined", *named).returncode == 0
    for command in (("inspect", text), ("verify", text, tmp_path / "joined"), ("diff", text, text)):
        assert mmconvert(*command, *named).returncode == 0, command
