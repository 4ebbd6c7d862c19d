"""llava-hf on the command line: there and back, from every side, by every name that the commands have for it."""

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
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]
Convert = Callable[..., Path]
GOLDEN = Path(__file__).parents[1] / "golden"
# What a conversion writes anew.
NEW = ("config.json", "model.safetensors")


@pytest.fixture
def convert(mmconvert: Run) -> Convert:
    def run(command: str, src: Path, out: Path, *options: object) -> Path:
        done = mmconvert(command, "--src", src, "--out", out, *options)
        assert done.returncode == 0, done.stderr
        return out

    return run


def document(folder: Path, name: str) -> Any:
    return json.loads((folder / name).read_text())


@pytest.mark.parametrize("kind", ["llava_llama", "llava_mistral"])
def test_a_llava_goes_to_transformers_and_comes_back_as_it_was(
    convert: Convert, contents: Contents, mmconvert: Run, make_llava: Make, tmp_path: Path, kind: str
) -> None:
    window = {"sliding_window": 16} if kind == "llava_mistral" else {}
    source = make_llava(tmp_path / "source", model_type=kind, **window)
    there = convert("llava-to-hf", source, tmp_path / "there", "--verify", "bytes")
    back = convert("hf-to-llava", there, tmp_path / "back")
    assert contents(back) == {key: each for key, each in contents(source).items() if "visual_projection" not in key}
    for a, b in ((source, there), (there, back), (source, back), (back, there)):
        assert mmconvert("verify", a, b).returncode == 0
    assert document(there, "config.json")["text_config"]["model_type"] == kind.removeprefix("llava_")


def test_a_cs_checkpoint_goes_there_in_one_pass(
    convert: Convert, contents: Contents, llava: Path, tmp_path: Path
) -> None:
    direct = convert("llava-to-hf", llava, tmp_path / "direct")
    cs = convert("llava-to-cs", llava, tmp_path / "cs", "--container", "safetensors")
    joined = convert("cs-to-hf", cs, tmp_path / "joined", "--layout", "llava-hf")
    again = convert("hf-to-cs", joined, tmp_path / "again", "--container", "safetensors")
    assert contents(joined) == contents(direct)
    assert contents(again) == contents(cs)
    assert document(joined, "mmconvert.json")["path"] == ["mmsimple-llava: cs -> llava-hf"]
    assert document(direct, "mmconvert.json")["path"] == [
        "mmsimple-llava: llava -> cs",
        "mmsimple-llava: cs -> llava-hf",
    ]


def test_a_tower_and_a_language_model_go_there_with_a_projector_of_a_seed(
    convert: Convert, mmconvert: Run, make_llama: Make, make_clip: Make, tmp_path: Path
) -> None:
    source = tmp_path / "parts"
    make_llama(source / "text_model")
    make_clip(source / "image_model")
    done = mmconvert("convert", "--to", "llava-hf", "--src", source, "--out", tmp_path / "none")
    assert done.returncode == 3
    assert "--init projector=uniform:SEED" in done.stderr
    out = tmp_path / "out"
    convert("convert", source, out, "--to", "llava-hf", "--init", "projector=uniform:1")
    assert mmconvert("verify", source, out).returncode == 0


def test_layouts_have_names(convert: Convert, mmconvert: Run, llava: Path, tmp_path: Path) -> None:
    apart = convert("llava-to-hf", llava, tmp_path / "apart", "--layout", "components")
    assert {each.name for each in apart.iterdir()} == {"README.md", "image_model", "mmconvert.json", "text_model"}
    joined = mmconvert("plan", "llava-to-hf", "--src", llava, "--layout", "llava-hf", "--json")
    assert json.loads(joined.stdout)["target"]["format"] == "llava-hf"
    refused = mmconvert("plan", "llava-to-cs", "--src", llava, "--layout", "llava-hf")
    assert refused.returncode == 2
    assert "--layout is for cs-to-hf and llava-to-hf" in refused.stderr


def test_what_a_command_does_not_read_is_refused_by_its_format(
    convert: Convert, mmconvert: Run, llava: Path, tmp_path: Path
) -> None:
    joined = convert("llava-to-hf", llava, tmp_path / "joined")
    done = mmconvert("llava-to-cs", "--src", joined, "--out", tmp_path / "cs")
    assert done.returncode == 4
    assert "format llava-hf, and this command reads llava" in done.stderr


def test_rows_that_are_added_and_cut_are_listed(convert: Convert, llava: Path, tmp_path: Path) -> None:
    there = convert("llava-to-hf", llava, tmp_path / "there")
    invented = {each["subject"]: each["why"] for each in document(there, "mmconvert.json")["invented"]}
    why = "rows 101 to 127 are new: each is the mean of the others"
    assert invented == {f"language_model.{name}.weight": why for name in ("model.embed_tokens", "lm_head")}
    back = convert("hf-to-llava", there, tmp_path / "back")
    dropped = {each["subject"]: each["why"] for each in document(back, "mmconvert.json")["dropped"]}
    assert dropped["language_model.lm_head.weight"] == "rows 101 to 127: text_model/lm_head.weight has no more than 101"


def test_one_tensors_journey_is_told_with_its_rows(convert: Convert, mmconvert: Run, llava: Path) -> None:
    done = mmconvert("plan", "llava-to-hf", "--src", llava, "--key", "language_model.lm_head.weight", "--json")
    found = json.loads(done.stdout)
    assert found["rule"] == "copied, and 27 rows added, each the mean of the others"
    assert found["shape"] == [128, 48]
    assert found["before"] == found["after"]


def test_the_tokenizer_gets_the_tokens_and_loses_them_again(convert: Convert, llava: Path, tmp_path: Path) -> None:
    there = convert("llava-to-hf", llava, tmp_path / "there")
    config = document(there, "config.json")
    added = {each["content"]: each["id"] for each in document(there, "tokenizer.json")["added_tokens"]}
    assert (added["<image>"], added["<pad>"]) == (101, 102)
    assert (config["image_token_index"], config["pad_token_id"]) == (101, 102)
    assert document(there, "tokenizer_config.json")["pad_token"] == "<pad>"
    assert document(there, "generation_config.json")["pad_token_id"] == 102
    back = convert("hf-to-llava", there, tmp_path / "back") / "text_model_llava"
    name = "tokenizer.model"
    assert (back / name).read_bytes() == (llava / "text_model_llava" / name).read_bytes()
    assert not (back / "tokenizer.json").exists()
    assert "<image>" not in (back / "tokenizer_config.json").read_text()


def test_another_tokenizer_may_be_given(
    convert: Convert, mmconvert: Run, llava: Path, llama: Path, tmp_path: Path
) -> None:
    bare = shutil.copytree(llava, tmp_path / "bare")
    (bare / "text_model_llava/tokenizer.model").unlink()
    done = mmconvert("llava-to-hf", "--src", bare, "--out", tmp_path / "without")
    assert done.returncode == 0
    assert "tokenizer_config.json is missing: transformers loads no processor without a tokenizer" in done.stderr
    given = convert("llava-to-hf", bare, tmp_path / "given", "--tokenizer", llama)
    assert (given / "tokenizer.model").read_bytes() == (llama / "tokenizer.model").read_bytes()
    assert "<image>" in (given / "tokenizer.json").read_text()


@pytest.mark.parametrize("kind", ["linear", "mlp3x_gelu"])
def test_a_projector_that_transformers_has_not_is_refused_with_what_to_do(
    mmconvert: Run, llava: Path, tmp_path: Path, kind: str
) -> None:
    source = shutil.copytree(llava, tmp_path / "source")
    text = source / "text_model_llava/config.json"
    text.write_text(json.dumps({**json.loads(text.read_text()), "mm_projector_type": kind}))
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert kind in done.stderr
    assert "keep it in LLaVA's layout" in done.stderr
    assert len(done.stderr.splitlines()) <= 2


def test_pictures_that_are_seen_otherwise_are_told_of(mmconvert: Run, make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source", image_aspect_ratio="pad")
    done = mmconvert("llava-to-hf", "--src", source, "--out", tmp_path / "out")
    assert "pads pictures to squares and transformers crops them" in done.stderr
    square = make_llava(tmp_path / "square", image_aspect_ratio="square")
    assert "transformers crops" not in mmconvert("plan", "llava-to-hf", "--src", square).stderr


def test_what_transformers_has_no_field_for_is_listed(convert: Convert, make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source", image_aspect_ratio="pad", tokenizer_model_max_length=64)
    there = convert("llava-to-hf", source, tmp_path / "there")
    dropped = {each["field"]: each["why"] for each in document(there, "mmconvert.json")["config"]["dropped"]}
    for name in ("image_aspect_ratio", "tokenizer_model_max_length"):
        assert dropped[f"text_model.{name}"] == "llava-hf has no field for it"


def test_both_compute_the_same(convert: Convert, mmconvert: Run, llava: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = mmconvert("llava-to-hf", "--src", llava, "--out", out, "--verify", "forward")
    assert done.returncode == 0, done.stderr
    assert "verified" in done.stderr
    assert mmconvert("verify", llava, out, "--forward").returncode == 0


def test_a_licence_travels_and_both_are_kept(convert: Convert, make_llava: Make, tmp_path: Path) -> None:
    source = make_llava(tmp_path / "source")
    (source / "text_model_llava/LICENSE").write_text("of the language model")
    (source / "image_model/LICENSE").write_text("of the tower")
    there = convert("llava-to-hf", source, tmp_path / "there")
    assert (there / "LICENSE").read_text() == "of the language model"
    assert (there / "LICENSE.vision_tower").read_text() == "of the tower"
    back = convert("hf-to-llava", there, tmp_path / "back")
    assert (back / "text_model_llava/LICENSE").read_text() == "of the language model"
    assert (back / "image_model/LICENSE").read_text() == "of the tower"


def test_every_file_beside_llava_s_weights_comes_back_as_it_was(convert: Convert, tmp_path: Path) -> None:
    source = GOLDEN / "llava/tiny_src"
    back = convert("hf-to-llava", convert("llava-to-hf", source, tmp_path / "there"), tmp_path / "back")
    for part in ("image_model", "text_model_llava"):
        before, after = (
            {each.name: each.read_bytes() for each in (folder / part).iterdir() if each.name not in NEW}
            for folder in (source, back)
        )
        assert after == before


@pytest.mark.parametrize("to", ["llava", "llava-hf"])
def test_a_tokenizer_of_transformers_5_is_written_for_4_too_and_is_not_said_to_be_as_it_was(
    convert: Convert, tmp_path: Path, to: str
) -> None:
    source = shutil.copytree(GOLDEN / "llava" / "tiny_llava_hf", tmp_path / "source")
    said = document(source, "tokenizer_config.json")
    more = {"extra_special_tokens": ["<s>", "dog"], "tokenizer_class": "TokenizersBackend"}
    (source / "tokenizer_config.json").write_text(json.dumps({**said, **more}))
    out = convert("convert", source, tmp_path / "out", "--to", to)
    folder = out / "text_model_llava" if to == "llava" else out
    config = document(folder, "tokenizer_config.json")
    assert config["tokenizer_class"] == "PreTrainedTokenizerFast"
    assert config["additional_special_tokens"] == ["dog"]
    assert not config.keys() & {"backend", "is_local", "local_files_only", "extra_special_tokens"}
    fast = document(folder, "tokenizer.json")
    assert fast["pre_tokenizer"]["add_prefix_space"] is True
    assert fast["model"]["merges"][0] == "▁ s"
    carried = document(out, "mmconvert.json")["carried"]
    assert not {name for name in carried if "tokenizer" in name}
