"""What the options of a conversion do to what is written and to what is said."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
import yaml
from safetensors.torch import load_file

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
ToCs = Callable[..., CompletedProcess[str]]
PROJECTOR = "image_model.projection."


@pytest.fixture
def to_cs(mmconvert: Run) -> ToCs:
    """`to_cs(src, out, *options)`: to CS in safetensors, which must succeed."""

    def run(src: Path, out: Path, *options: object) -> CompletedProcess[str]:
        done = mmconvert("hf-to-cs", "--src", src, "--out", out, "--container", "safetensors", *options)
        assert done.returncode == 0, done.stderr
        return done

    return run


def manifest(folder: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((folder / "mmconvert.json").read_text())
    return document


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = load_file(folder / "model.safetensors")
    return found


# --- --init ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def no_projector(make_llama: Make, make_clip: Make, tmp_path: Path) -> Path:
    make_clip(tmp_path / "source" / "clip", dtype=torch.bfloat16)
    make_llama(tmp_path / "source" / "vicuna")
    return tmp_path / "source"


def test_init_makes_a_projector_that_depends_on_the_seed_alone(to_cs: ToCs, no_projector: Path, tmp_path: Path) -> None:
    for name, seed in {"one": 1, "again": 1, "two": 2}.items():
        to_cs(no_projector, tmp_path / name, "--init", f"projector=uniform:{seed}")
    one, again, two = (
        {key: tensor for key, tensor in weights(tmp_path / name).items() if key.startswith(PROJECTOR)}
        for name in ("one", "again", "two")
    )
    assert {key.removeprefix(PROJECTOR): list(tensor.shape) for key, tensor in one.items()} == {
        "ffn.0.linear_layer.weight": [48, 32],
        "ffn.0.linear_layer.bias": [48],
        "ffn.1.linear_layer.weight": [48, 48],
        "ffn.1.linear_layer.bias": [48],
    }
    for key, tensor in one.items():
        assert tensor.dtype == torch.bfloat16
        assert torch.equal(tensor, again[key])
        assert not torch.equal(tensor, two[key])


def test_what_init_made_stands_in_the_manifest(to_cs: ToCs, no_projector: Path, tmp_path: Path) -> None:
    done = to_cs(no_projector, tmp_path / "cs", "--init", "projector=uniform:1")
    assert f"invented: {PROJECTOR}ffn.0.linear_layer.weight" in done.stdout
    said = manifest(tmp_path / "cs")
    assert said["options"]["init"] == {"projector": "uniform:1"}
    assert [each["subject"] for each in said["invented"]] == [
        each["key"] for each in said["tensors"] if each["source"] is None
    ]
    assert all("seed 1" in each["why"] for each in said["invented"])


def test_without_init_the_refusal_names_the_option(mmconvert: Run, no_projector: Path, tmp_path: Path) -> None:
    done = mmconvert("hf-to-cs", "--src", no_projector, "--out", tmp_path / "cs")
    assert done.returncode == 3
    assert "mm_projector.0.weight is missing (expected 48 x 32, and 3 more)" in done.stderr
    assert "--init projector=uniform:SEED" in done.stderr


@pytest.mark.parametrize("wrong", ["projector", "projector=normal:1", "projector=uniform:", "projector=uniform:-1"])
def test_an_init_that_is_none_is_a_usage_error(mmconvert: Run, llama: Path, tmp_path: Path, wrong: str) -> None:
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--init", wrong)
    assert done.returncode == 2
    assert "PART=uniform:SEED" in done.stderr


# --- --dtype --------------------------------------------------------------------------------------------------------


def test_dtype_casts_everything(to_cs: ToCs, llava: Path, tmp_path: Path) -> None:
    to_cs(llava, tmp_path / "cs", "--dtype", "bf16")
    assert {tensor.dtype for tensor in weights(tmp_path / "cs").values()} == {torch.bfloat16}
    assert manifest(tmp_path / "cs")["options"]["dtype"] == {"all": "bfloat16"}


def test_dtype_by_part_leaves_the_others_alone(to_cs: ToCs, llava: Path, tmp_path: Path) -> None:
    to_cs(llava, tmp_path / "cs", "--dtype", "vision=fp16,projector=fp32")
    found = {
        key.split(".")[1 if key.startswith("image") else 0]: t.dtype for key, t in weights(tmp_path / "cs").items()
    }
    assert found == {"image_model_list": torch.float16, "projection": torch.float32, "text_model": torch.bfloat16}


@pytest.mark.parametrize("dtype", ["bf16,vision=keep", "vision=keep,bf16"])
def test_a_part_that_is_kept_is_left_alone_whatever_the_others_become(
    to_cs: ToCs, mmconvert: Run, make_clip: Make, make_llama: Make, tmp_path: Path, dtype: str
) -> None:
    source = tmp_path / "source"
    make_clip(source / "clip", dtype=torch.float16)
    make_llama(source / "llama", dtype=torch.float32)
    to_cs(source, tmp_path / "cs", "--dtype", dtype, "--init", "projector=uniform:1")
    kept = {
        key: tensor.dtype
        for key, tensor in weights(tmp_path / "cs").items()
        if key.startswith("image_model.image_model_list")
    }
    assert set(kept.values()) == {torch.float16}
    others = {tensor.dtype for key, tensor in weights(tmp_path / "cs").items() if key not in kept}
    assert others == {torch.bfloat16}
    assert manifest(tmp_path / "cs")["options"]["dtype"] == {"all": "bfloat16", "vision": "keep"}
    verified = mmconvert("verify", source, tmp_path / "cs")
    assert (verified.returncode, verified.stderr) == (0, "")


def test_dtype_rounds_as_torch_does(to_cs: ToCs, clip: Path, tmp_path: Path) -> None:
    to_cs(clip, tmp_path / "cs", "--dtype", "bf16")
    source = load_file(clip / "model.safetensors")["visual_projection.weight"]
    target = weights(tmp_path / "cs")["classifier.classifier.ffn.0.linear_layer.weight"]
    assert torch.equal(target, source.to(torch.bfloat16))


def test_values_that_become_infinite_are_counted_and_told(to_cs: ToCs, make_clip: Make, tmp_path: Path) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["visual_projection.weight"][0, :3] = 1e5

    source = make_clip(tmp_path / "source", edit=enlarge)
    done = to_cs(source, tmp_path / "cs", "--dtype", "fp16", "-q", "--verify", "bytes")
    key = "classifier.classifier.ffn.0.linear_layer.weight"
    assert done.stderr == f"warning: {key}: 3 values are too large for the new type and became infinite\n"
    assert manifest(tmp_path / "cs")["overflow"] == {key: 3}


def test_values_that_llavas_loader_makes_infinite_are_counted_and_told(
    mmconvert: Run, to_cs: ToCs, make_llava: Make, tmp_path: Path
) -> None:
    def enlarge(tensors: dict[str, torch.Tensor]) -> None:
        tensors["model.norm.weight"][:2] = 1e5

    to_cs(make_llava(tmp_path / "source", edit=enlarge), tmp_path / "cs")
    done = mmconvert("cs-to-llava", "--src", tmp_path / "cs", "--out", tmp_path / "out")
    assert done.returncode == 0
    assert "model.norm.weight: 2 values are too large for float16" in done.stderr
    assert manifest(tmp_path / "out")["beyond_float16"] == {"model.norm.weight": 2}


@pytest.mark.parametrize("wrong", ["int8", "text=keep=fp32", "audio=fp16"])
def test_a_dtype_that_does_not_fit_is_a_usage_error(mmconvert: Run, llama: Path, tmp_path: Path, wrong: str) -> None:
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--dtype", wrong)
    assert done.returncode == 2
    assert "--dtype" in done.stderr


# --- what stands beside the weights ---------------------------------------------------------------------------------


def test_a_given_tokenizer_replaces_the_sources_own(to_cs: ToCs, llama: Path, tmp_path: Path) -> None:
    given = tmp_path / "tokenizer"
    given.mkdir()
    for name in ("tokenizer.json", "tokenizer_config.json", "README.md"):
        (given / name).write_text("{}")
    to_cs(llama, tmp_path / "cs", "--tokenizer", given)
    assets = {path.name for path in (tmp_path / "cs" / "assets").iterdir()}
    assert assets == {"config.json", "tokenizer.json", "tokenizer_config.json"}


def test_a_tokenizer_that_does_not_fit_the_vocabulary_is_told(to_cs: ToCs, make_llama: Make, tmp_path: Path) -> None:
    done = to_cs(make_llama(tmp_path / "source", vocab_size=128), tmp_path / "cs")
    assert "101" in done.stderr
    assert "128" in done.stderr


@pytest.mark.parametrize("where", ["empty", "absent"])
def test_a_folder_without_a_tokenizer_is_a_usage_error(mmconvert: Run, llama: Path, tmp_path: Path, where: str) -> None:
    (tmp_path / "empty").mkdir()
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--tokenizer", tmp_path / where)
    assert done.returncode == 2
    assert where in done.stderr


def test_a_tokenizer_that_links_out_of_its_folder_is_refused(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "given").mkdir()
    (tmp_path / "given" / "tokenizer.json").symlink_to("../secret")
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--tokenizer", tmp_path / "given")
    assert done.returncode == 3
    assert "tokenizer.json: links out of its folder" in done.stderr
    assert not (tmp_path / "cs").exists()


def test_the_model_section_is_put_into_a_trainers_params(to_cs: ToCs, llama: Path, tmp_path: Path) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("trainer:\n  init:\n    model: {name: other}\n    seed: 1\n  fit: {ckpt_path: null}\n")
    to_cs(llama, tmp_path / "cs", "--params", params)
    written = yaml.safe_load((tmp_path / "cs" / "config.yaml").read_text())
    model = written["trainer"]["init"].pop("model")
    assert (model["name"], model["vocab_size"]) == ("llama", 101)
    assert written == {"trainer": {"init": {"seed": 1}, "fit": {"ckpt_path": None}}}


def test_a_trainers_params_are_read_back(to_cs: ToCs, mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_text("trainer: {}\n")
    to_cs(llama, tmp_path / "cs", "--params", tmp_path / "params.yaml")
    assert mmconvert("verify", llama, tmp_path / "cs").returncode == 0


OWN: dict[str, Any] = {"freeze": ["^text_model"], "loss_scaling": "batch_size", "loss_weight": 0.5}


@pytest.mark.parametrize(
    ("said", "kept"), [(OWN, OWN), ({"freeze": None}, {"freeze": None}), ({"freeze": []}, {"freeze": []}), ({}, {})]
)
def test_how_the_model_trains_stays_as_the_users_params_say(
    to_cs: ToCs, no_projector: Path, tmp_path: Path, said: dict[str, Any], kept: dict[str, Any]
) -> None:
    model = {"name": "other", "text_model": {"hidden_size": 7}, **said}
    (tmp_path / "params.yaml").write_text(json.dumps({"trainer": {"init": {"model": model}}}))
    init = ("--init", "projector=uniform:1")
    to_cs(no_projector, tmp_path / "plain", *init)
    to_cs(no_projector, tmp_path / "cs", *init, "--params", tmp_path / "params.yaml")
    theirs = yaml.safe_load((tmp_path / "plain" / "config.yaml").read_text())["model"]
    ours = yaml.safe_load((tmp_path / "cs" / "config.yaml").read_text())["trainer"]["init"]["model"]
    assert ours == {**theirs, **kept}
    assert manifest(tmp_path / "cs")["config"]["kept"] == list(kept)


def test_what_params_say_of_training_is_refused_where_no_class_reads_it(
    mmconvert: Run, no_projector: Path, tmp_path: Path
) -> None:
    params = tmp_path / "params.yaml"
    params.write_text("model: {freeze: ^text_model}\n")
    given = ("--init", "projector=uniform:1", "--params", params)
    done = mmconvert("hf-to-cs", "--src", no_projector, "--out", tmp_path / "cs", *given)
    assert done.returncode == 2
    assert f"{params}: freeze: '^text_model' is not of type 'array'" in done.stderr
    assert not (tmp_path / "cs").exists()


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("trainer: null", "trainer is None, but must be one mapping"),
        ("trainer: {init: [1]}", "trainer.init is [1], but must be a mapping"),
        ("- 1", "the file is [1], but must be a mapping"),
        (None, "does not exist"),
    ],
)
def test_params_that_have_no_place_for_a_model_are_a_usage_error(
    mmconvert: Run, llama: Path, tmp_path: Path, text: str | None, what: str
) -> None:
    params = tmp_path / "params.yaml"
    if text is not None:
        params.write_text(text)
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--params", params)
    assert done.returncode == 2
    assert str(params) in done.stderr
    assert what in done.stderr
    assert not (tmp_path / "cs").exists()


@pytest.mark.parametrize(
    ("wanted", "written"), [("absolute", "{out}/image_model"), ("relative", "../image_model"), ("openai/x", "openai/x")]
)
def test_the_tower_is_named_as_wished(
    mmconvert: Run, to_cs: ToCs, llava: Path, tmp_path: Path, wanted: str, written: str
) -> None:
    to_cs(llava, tmp_path / "cs")
    out = tmp_path / "out"
    assert mmconvert("cs-to-llava", "--src", tmp_path / "cs", "--out", out, "--tower-path", wanted).returncode == 0
    config = json.loads((out / "text_model_llava" / "config.json").read_text())
    assert config["mm_vision_tower"] == written.format(out=out)


# --- releases -------------------------------------------------------------------------------------------------------


def test_the_release_is_the_newest_or_the_one_asked_for(to_cs: ToCs, llama: Path, tmp_path: Path) -> None:
    to_cs(llama, tmp_path / "newest")
    to_cs(llama, tmp_path / "asked", "--to-release", "2.9")
    assert [manifest(tmp_path / name)["target"]["release"] for name in ("newest", "asked")] == ["2.10", "2.9"]


@pytest.mark.parametrize("release", ["2.11", "1.0", "3.0"])
def test_an_unknown_release_is_no_conversion(mmconvert: Run, llama: Path, tmp_path: Path, release: str) -> None:
    done = mmconvert("hf-to-cs", "--src", llama, "--out", tmp_path / "cs", "--to-release", release)
    assert done.returncode == 4
    assert f"CS release {release} is not known; 1.9 to 2.10 are" in done.stderr


# --- the run --------------------------------------------------------------------------------------------------------


def test_overwrite_replaces_the_whole_folder(to_cs: ToCs, llama: Path, clip: Path, tmp_path: Path) -> None:
    to_cs(llama, tmp_path / "cs")
    to_cs(clip, tmp_path / "cs", "--overwrite")
    assert manifest(tmp_path / "cs")["source"]["model"] == "clip-vit"
    assert not (tmp_path / "cs" / "assets" / "tokenizer.model").exists()


@pytest.mark.parametrize(("digest", "length"), [("xxh3", 32), ("sha256", 64), ("none", 0)])
def test_the_digest_is_chosen(
    to_cs: ToCs, mmconvert: Run, llama: Path, tmp_path: Path, digest: str, length: int
) -> None:
    to_cs(llama, tmp_path / "cs", "--digest", digest)
    said = manifest(tmp_path / "cs")
    assert said["digest"] == digest
    assert {len(each["digest"]) for each in said["tensors"]} == {length}
    assert mmconvert("verify", tmp_path / "cs").returncode == (2 if digest == "none" else 0)


@pytest.mark.parametrize("options", [("--verify", "bytes"), ("--verify", "none"), ("--no-fsync",), ("-v",)])
def test_how_it_is_checked_and_synced_does_not_change_the_result(
    to_cs: ToCs, llama: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    to_cs(llama, tmp_path / "plain")
    to_cs(llama, tmp_path / "other", *options)
    for name in ("model.safetensors", "config.yaml", "mmconvert.json"):
        assert (tmp_path / "plain" / name).read_bytes() == (tmp_path / "other" / name).read_bytes()


def test_scripts_get_a_summary(to_cs: ToCs, llama: Path, tmp_path: Path) -> None:
    summary = json.loads(to_cs(llama, tmp_path / "cs", "--json").stdout)
    assert summary.pop("seconds") > 0
    assert summary.pop("bytes") > 0
    assert summary == {
        "schema": 1,
        "out": str(tmp_path / "cs"),
        "tensors": 22,
        "manifest": str(tmp_path / "cs" / "mmconvert.json"),
        "dropped": 0,
        "invented": [],
        "warnings": [],
    }


def test_quiet_says_nothing(to_cs: ToCs, llama: Path, tmp_path: Path) -> None:
    done = to_cs(llama, tmp_path / "cs", "-q")
    assert (done.stdout, done.stderr) == ("", "")


def test_warnings_and_errors_go_to_the_log_file_too(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for file in llama.iterdir():
        (source / file.name).symlink_to(file)
    done = mmconvert("verify", llama, source, "--log-file", tmp_path / "log", "-v")
    assert done.returncode == 3
    assert (tmp_path / "log").read_text() == done.stderr
