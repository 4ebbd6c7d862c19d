"""`mmconvert synth`: a random checkpoint of any shape, in any format, that converts and loads like a real one."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import pytest
import torch
from safetensors import safe_open
from transformers import AutoModelForCausalLM, CLIPVisionModelWithProjection

from mmconvert import api

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]
Contents = Callable[[Path], dict[str, tuple[str, tuple[int, ...], bytes]]]

GOLDEN = Path(__file__).parents[1] / "golden/inputs"


def synth(run: Run, model: str, config: Path, out: Path, *arguments: object) -> Path:
    done = run("synth", model, "--config", config, "--out", out, "--no-fsync", *arguments)
    assert (done.returncode, done.stderr) == (0, "")
    return out


def blocks(folder: Path) -> int:
    """The bytes that the weights in a folder take on the disk."""
    return sum(512 * file.stat().st_blocks for file in folder.glob("model*") if file.suffix != ".json")


def assert_is_converted(run: Run, a: Path, b: Path, model: str) -> None:
    done = run("verify", a, b, "--model", model)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
@pytest.mark.parametrize(
    ("model", "config"),
    [
        ("llama", "llama_gqa"),
        ("llama", "llama_tied"),
        ("clip-vit", "clip_proj"),
        ("mmsimple-llava", "mmsimple"),
        ("llava", "llava"),
    ],
)
def test_one_seed_gives_one_model_in_every_format(
    mmconvert: Run, contents: Contents, tmp_path: Path, model: str, config: str, container: str
) -> None:
    hf = synth(mmconvert, model, GOLDEN / config, tmp_path / "hf", "--as", "hf", "--seed", 3)
    options = ("--container", container, "--max-shard-size", "100kB")
    cs = synth(mmconvert, model, GOLDEN / config, tmp_path / "cs", "--as", "cs", "--seed", 3, *options)
    assert_is_converted(mmconvert, hf, cs, model)
    assert_is_converted(mmconvert, cs, hf, model)
    done = mmconvert("convert", "--to", "cs", "--src", hf, "--out", tmp_path / "too", "--no-fsync", "--model", model)
    assert done.returncode == 0
    assert contents(tmp_path / "too") == contents(cs)
    if model in ("mmsimple-llava", "llava"):
        llava = synth(mmconvert, model, GOLDEN / config, tmp_path / "llava", "--as", "llava", "--seed", 3)
        assert_is_converted(mmconvert, cs, llava, model)


def test_biases_are_drawn_where_the_config_has_them(mmconvert: Run, make_llama: Make, tmp_path: Path) -> None:
    config = make_llama(tmp_path / "config", attention_bias=True, mlp_bias=True)
    hf = synth(mmconvert, "llama", config, tmp_path / "hf")
    cs = synth(mmconvert, "llama", config, tmp_path / "cs", "--as", "cs-2.4")
    assert "model.layers.1.self_attn.q_proj.bias" in api.open(hf)
    assert_is_converted(mmconvert, hf, cs, "llama")


def test_a_cs_config_gives_the_model_that_its_source_gives(mmconvert: Run, contents: Contents, tmp_path: Path) -> None:
    config = GOLDEN / "mmsimple"
    cs = synth(mmconvert, "mmsimple-llava", config, tmp_path / "cs", "--as", "cs")
    for form in ("cs", "hf", "llava"):
        ours = synth(mmconvert, "mmsimple-llava", cs / "config.yaml", tmp_path / "a" / form, "--as", form)
        theirs = synth(mmconvert, "mmsimple-llava", config, tmp_path / "b" / form, "--as", form)
        assert contents(ours) == contents(theirs)


@pytest.mark.parametrize("container", ["mdl", "safetensors"])
def test_the_same_seed_gives_the_same_bytes(mmconvert: Run, llama: Path, tmp_path: Path, container: str) -> None:
    one, two = (
        synth(mmconvert, "llama", llama, tmp_path / name, "--as", "cs", "--container", container, *seed)
        for name, seed in (("said", ("--seed", 0)), ("usual", ()))
    )
    names = sorted(path.relative_to(one) for path in one.rglob("*") if path.is_file())
    assert len(names) >= 4
    assert all((one / name).read_bytes() == (two / name).read_bytes() for name in names)


def test_transformers_loads_a_random_llama(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    out = synth(mmconvert, "llama", llama, tmp_path / "out", "--max-shard-size", "30kB", "--dtype", "bf16")
    loaded: Any = AutoModelForCausalLM.from_pretrained(out, output_loading_info=True)
    model, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    assert len(list(out.glob("model-*.safetensors"))) > 2
    assert model.dtype == torch.bfloat16
    logits = model(torch.arange(12).view(1, 12)).logits
    assert logits.isfinite().all()
    assert logits.std() > 0


def test_transformers_loads_a_random_tower(mmconvert: Run, clip: Path, tmp_path: Path) -> None:
    out = synth(mmconvert, "clip-vit", clip, tmp_path / "out")
    loaded: Any = CLIPVisionModelWithProjection.from_pretrained(out, output_loading_info=True)
    _, info = loaded
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    with safe_open(out / "model.safetensors", "pt") as file:
        assert file.metadata() == {"format": "pt"}


def test_the_config_and_its_other_fields_travel(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    config = {**json.loads((llama / "config.json").read_text()), "torch_dtype": "float16", "pad_token_id": 7}
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = synth(mmconvert, "llama", tmp_path / "config.json", tmp_path / "hf")
    written = json.loads((out / "config.json").read_text())
    assert {name: written[name] for name in config} == config
    cs = synth(mmconvert, "llama", tmp_path / "config.json", tmp_path / "cs", "--as", "cs")
    assert json.loads((cs / "assets/config.json").read_text()) == config


def test_the_manifest_proves_the_folder_and_says_what_was_drawn(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    out = synth(mmconvert, "llama", llama, tmp_path / "out", "--as", "cs-2.4", "--seed", 7)
    manifest = json.loads((out / "mmconvert.json").read_text())
    assert (manifest["drawn"], manifest["target"]["release"]) == ({"seed": 7}, "2.4")
    assert {each["source"] for each in manifest["tensors"]} == {None}
    assert mmconvert("verify", out).returncode == 0


@pytest.mark.parametrize(
    "options", [("--as", "hf"), ("--as", "cs"), ("--as", "cs", "--container", "safetensors")], ids=" ".join
)
def test_a_sparse_checkpoint_has_its_size_and_takes_no_room(
    mmconvert: Run, tmp_path: Path, options: tuple[str, ...], make_llama: Make
) -> None:
    config = json.loads((make_llama(tmp_path / "llama") / "config.json").read_text())
    config |= {"vocab_size": 300_000, "torch_dtype": "float32"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = synth(mmconvert, "llama", tmp_path / "config.json", tmp_path / "out", "--sparse", *options)
    size = sum(file.stat().st_size for file in out.glob("model*"))
    assert size > 2 * 4 * 300_000 * 48
    assert blocks(out) < size / 100
    assert all(not any(ref.read()) for ref in api.open(out).values())
    assert json.loads((out / "mmconvert.json").read_text())["drawn"] == {"sparse": True}


def test_a_sparse_checkpoint_converts_to_a_sparse_one(mmconvert: Run, make_llama: Make, tmp_path: Path) -> None:
    config = make_llama(tmp_path / "llama", vocab_size=300_000)
    out = synth(mmconvert, "llama", config, tmp_path / "hf", "--sparse")
    done = mmconvert("hf-to-cs", "--src", out, "--out", tmp_path / "cs", "--no-fsync")
    assert done.returncode == 0, done.stderr
    # The block that the source's header reaches into is written; all others stay holes.
    assert blocks(tmp_path / "cs") < (tmp_path / "cs/model.mdl").stat().st_size / 20


def test_scripts_get_a_summary(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    done = mmconvert("synth", "llama", "--config", llama, "--out", tmp_path / "out", "--no-fsync", "--json")
    document: dict[str, Any] = json.loads(done.stdout)
    assert document.pop("seconds") >= 0
    files = [path for path in (tmp_path / "out").iterdir() if path.name != "mmconvert.json"]
    assert document == {
        "schema": 1,
        "out": str(tmp_path / "out"),
        "model": "llama",
        "format": "hf",
        "release": None,
        "tensors": 21,
        "bytes": sum(path.stat().st_size for path in files),
        "manifest": str(tmp_path / "out/mmconvert.json"),
        "warnings": [],
    }


def test_what_stands_there_is_replaced_only_when_that_is_asked_for(mmconvert: Run, llama: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "letter.txt").write_text("dear")
    arguments = ("synth", "llama", "--config", llama, "--out", out, "--no-fsync")
    assert mmconvert(*arguments).returncode == 5
    assert (out / "letter.txt").read_text() == "dear"
    assert mmconvert(*arguments, "--overwrite").returncode == 0
    assert not (out / "letter.txt").exists()


@pytest.mark.parametrize(
    ("arguments", "code", "why"),
    [
        (("gpt2",), 4, "'gpt2'; known: "),
        (("clip-vit",), 3, "is no clip-vit"),
        (("llama", "--as", "llava"), 4, "no way from hf to llava"),
        (("llama", "--sparse", "--seed", 1), 2, "--seed"),
        (("llama", "--seed", -1), 2, "--seed"),
        (("llama", "--dtype", "int8"), 2, "--dtype"),
        (("llama", "--max-shard-size", "small"), 2, "is no size"),
    ],
)
def test_what_cannot_be_made_is_refused_and_leaves_nothing(
    mmconvert: Run, llama: Path, tmp_path: Path, arguments: tuple[object, ...], code: int, why: str
) -> None:
    done = mmconvert("synth", *arguments, "--config", llama, "--out", tmp_path / "out")
    assert done.returncode == code
    assert why in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_config_that_cannot_be_said_is_refused(mmconvert: Run, make_llama: Make, tmp_path: Path) -> None:
    config = make_llama(tmp_path / "odd", head_dim=20)
    done = mmconvert("synth", "llama", "--config", config, "--out", tmp_path / "out")
    assert done.returncode == 3
    assert "head_dim is 20" in done.stderr
    assert not (tmp_path / "out").exists()
