"""`verify --forward` and `--verify forward`: two architectures compute the same from what was converted."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from subprocess import CompletedProcess
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.forward_fakes import Lab, install, install_without_torch

Make = Callable[..., Path]
Run = Callable[..., CompletedProcess[str]]

Q_PROJ = "text_model.transformer_decoder.layers.0.self_attn.proj_q_dense_layer.weight"


def tame(tensors: dict[str, torch.Tensor]) -> None:
    """Weights as small as trained ones: large ones magnify every rounding error."""
    for tensor in tensors.values():
        tensor.mul_(0.1 if tensor.dim() > 1 else 1)


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory, make_llava: Make) -> Path:
    return make_llava(tmp_path_factory.mktemp("source") / "llava", edit=tame)


@pytest.fixture
def cs(source: Path, tmp_path: Path, mmconvert: Run) -> Path:
    out = tmp_path / "cs"
    assert mmconvert("llava-to-cs", "--src", source, "--out", out, "--container", "safetensors").returncode == 0
    return out


def edit(cs: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    file = cs / "model.safetensors"
    tensors = load_file(file)
    change(tensors)
    save_file(tensors, file)


def swap_rotary_rows(tensors: dict[str, torch.Tensor]) -> None:
    """Put the query rows of one layer back into Hugging Face's order: what a conversion without its row rule does."""
    rows = tensors[Q_PROJ]
    tensors[Q_PROJ] = rows.reshape(4, -1, 2, rows.shape[1]).transpose(1, 2).reshape(rows.shape)


def roll_positions(tensors: dict[str, torch.Tensor]) -> None:
    key = "image_model.image_model_list.0.0.embedding_layer.position_embeddings.weight"
    tensors[key] = tensors[key].roll(1, dims=0)


def swap_gate_and_up(tensors: dict[str, torch.Tensor]) -> None:
    first = "text_model.transformer_decoder.layers.1.ffn.ffn.0.linear_layer"
    up, gate = f"{first}.weight", f"{first}_for_glu.weight"
    tensors[up], tensors[gate] = tensors[gate], tensors[up]


def outputs(done: CompletedProcess[str]) -> dict[str, Any]:
    return {each["name"]: each for each in json.loads(done.stdout)["outputs"]}


def test_a_conversion_computes_what_its_source_does(source: Path, cs: Path, shell: Run) -> None:
    done = shell("verify", source, cs, "--forward")
    assert (done.returncode, done.stderr) == (0, "")
    header, *_ = done.stdout.splitlines()
    for column in ("largest difference", "of the largest value", "allowed", "mean KL", "same token"):
        assert column in header
    for name in ("text logits", "image features", "projected image features", "logits"):
        assert f"\n {name} " in done.stdout
    assert f"verified: {cs} computes what {source} does: logits within" in done.stdout
    assert "100 %" in done.stdout


def test_scripts_get_one_document(source: Path, cs: Path, mmconvert: Run) -> None:
    done = mmconvert("verify", source, cs, "--forward", "--json")
    found = json.loads(done.stdout)
    assert (found["schema"], found["a"], found["b"], found["ok"]) == (1, str(source), str(cs), True)
    assert (found["tolerance"], found["problems"]) == (2e-5, [])
    logits = outputs(done)["logits"]
    assert logits["shape"][::2] == [2, 101]
    assert logits["max_abs"] <= logits["allowed"] == pytest.approx(2e-5 * max(1, logits["largest"]))
    assert logits["max_rel"] == pytest.approx(logits["max_abs"] / logits["largest"])
    assert (logits["argmax"], logits["nonfinite"], logits["ok"]) == (1, 0, True)
    assert 0 <= logits["kl"] < 1e-9
    assert outputs(done)["image features"]["kl"] is None


def test_the_way_back_and_both_hops_at_once_compute_the_same(
    source: Path, cs: Path, tmp_path: Path, mmconvert: Run
) -> None:
    assert mmconvert("cs-to-llava", "--src", cs, "--out", tmp_path / "back").returncode == 0
    for a, b in ((cs, tmp_path / "back"), (source, tmp_path / "back"), (cs, source)):
        assert mmconvert("verify", a, b, "--forward").returncode == 0


def test_rows_that_were_not_reordered_end_with_6_and_say_where(source: Path, cs: Path, mmconvert: Run) -> None:
    edit(cs, swap_rotary_rows)
    done = mmconvert("verify", source, cs, "--forward", "--json")
    assert done.returncode == 6
    assert f"{cs} does not compute what {source} does: text logits: differs by" in done.stderr
    assert json.loads(done.stdout)["ok"] is False
    assert {name for name, each in outputs(done).items() if not each["ok"]} == {"text logits", "logits"}


def test_a_tolerance_of_ones_own_decides(source: Path, cs: Path, mmconvert: Run) -> None:
    edit(cs, swap_rotary_rows)
    assert mmconvert("verify", source, cs, "--forward", "--tolerance", 10).returncode == 0
    assert mmconvert("verify", source, cs, "--forward", "--tolerance", 1e-9).returncode == 6


@pytest.mark.parametrize(
    ("change", "affected"),
    [
        (roll_positions, {"image features", "projected image features", "logits"}),
        (swap_gate_and_up, {"text logits", "logits"}),
    ],
)
def test_tensors_in_each_others_place_show(
    change: Callable[[dict[str, torch.Tensor]], object], affected: set[str], source: Path, cs: Path, mmconvert: Run
) -> None:
    edit(cs, change)
    done = mmconvert("verify", source, cs, "--forward", "--json")
    assert done.returncode == 6
    assert {name for name, each in outputs(done).items() if not each["ok"]} == affected


@pytest.mark.parametrize(
    ("right", "wrong", "affected"),
    [
        ("image_layer_idx: -2", "image_layer_idx: -3", "logits"),
        ("rope_theta: 10000.0", "rope_theta: 500.0", "text logits"),
        (
            "layer_norm_epsilon: 1.0e-05\n        max_position",
            "layer_norm_epsilon: 0.1\n        max_position",
            "text logits",
        ),
    ],
)
def test_a_config_that_says_something_else_shows(
    right: str, wrong: str, affected: str, source: Path, cs: Path, mmconvert: Run
) -> None:
    config = cs / "config.yaml"
    text = config.read_text("utf-8")
    assert right in text
    config.write_text(text.replace(right, wrong), "utf-8")
    done = mmconvert("verify", source, cs, "--forward", "--json")
    assert done.returncode == 6
    assert not outputs(done)[affected]["ok"]


@pytest.mark.parametrize("window", ["null", "600"])
def test_a_window_that_no_text_is_long_enough_for_is_compared_by_what_it_is_said_to_be(
    window: str, make_llama: Make, tmp_path: Path, mmconvert: Run
) -> None:
    fields = {"model_type": "mistral", "architectures": ["MistralForCausalLM"], "sliding_window": 4096}
    source = make_llama(tmp_path / "src", edit=tame, max_position_embeddings=8192, **fields)
    cs = tmp_path / "cs"
    done = mmconvert("hf-to-cs", "--src", source, "--out", cs, "--verify", "forward")
    assert done.returncode == 0
    assert (
        "note: both say that their window is 4096 tokens; the texts have 512, so that it does not show" in done.stderr
    )
    config = cs / "config.yaml"
    text = config.read_text("utf-8").replace("sliding_window_length: 4096", f"sliding_window_length: {window}")
    config.write_text(text, "utf-8")
    done = mmconvert("verify", source, cs, "--forward")
    assert done.returncode == 6
    assert "sliding window: 4096 in A, " in done.stderr


def test_nan_is_null_in_the_document(source: Path, cs: Path, mmconvert: Run) -> None:
    def spoil(tensors: dict[str, torch.Tensor]) -> None:
        tensors["text_model.lm_head.weight"][0, 0] = float("nan")

    edit(cs, spoil)
    done = mmconvert("verify", source, cs, "--forward", "--json")
    assert done.returncode == 6
    assert outputs(done)["logits"]["max_abs"] is None
    assert "NaN or infinite in one of the two only" in done.stderr


def test_what_a_cast_makes_infinite_is_not_hidden_by_the_same_cast(
    make_llama: Make, tmp_path: Path, mmconvert: Run
) -> None:
    def overflow(tensors: dict[str, torch.Tensor]) -> None:
        tame(tensors)
        tensors["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6

    source = make_llama(tmp_path / "src", edit=overflow)
    convert = ["hf-to-cs", "--src", source, "--out", tmp_path / "cs", "--dtype", "fp16"]
    done = mmconvert(*convert, "--verify", "forward")
    assert done.returncode == 6
    assert "model.layers.0.mlp.up_proj.weight: 1 values of A become infinite in B's element type" in done.stderr
    assert not (tmp_path / "cs").exists()


@pytest.mark.parametrize("forget", [False, True])
def test_a_cast_by_part_is_no_difference_on_any_way(forget: bool, source: Path, tmp_path: Path, mmconvert: Run) -> None:
    """Whether B records it, as the first conversion does, or not, as the second."""
    cs, back = tmp_path / "cs", tmp_path / "back"
    convert = ["llava-to-cs", "--src", source, "--out", cs, "--dtype", "vision=bf16,text=fp16"]
    assert mmconvert(*convert, "--verify", "forward").returncode == 0
    if forget:
        (cs / "mmconvert.json").unlink()
    assert mmconvert("verify", source, cs, "--forward").returncode == 0
    assert mmconvert("cs-to-llava", "--src", cs, "--out", back).returncode == 0
    assert mmconvert("verify", source, back, "--forward").returncode == 0


def test_a_cast_is_compared_after_that_cast(source: Path, tmp_path: Path, mmconvert: Run) -> None:
    out = tmp_path / "half"
    mmconvert("llava-to-cs", "--src", source, "--out", out, "--dtype", "fp16")
    done = mmconvert("verify", source, out, "--forward")
    assert done.returncode == 0
    assert "note: A's weights are rounded to float16 first, where B's are" in done.stderr


def test_an_image_tower_and_a_decoder_verify_by_themselves(
    make_llama: Make, clip: Path, tmp_path: Path, mmconvert: Run
) -> None:
    llama = make_llama(tmp_path / "llama", edit=tame, container="bin", shards=2)
    for src in (llama, clip):
        out = tmp_path / f"cs-{src.name}"
        assert mmconvert("hf-to-cs", "--src", src, "--out", out, "--verify", "forward").returncode == 0
        assert mmconvert("verify", src, out, "--forward").returncode == 0


def test_a_conversion_may_verify_itself(source: Path, tmp_path: Path, mmconvert: Run) -> None:
    done = mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", "--verify", "forward")
    assert done.returncode == 0
    assert f"verified: {tmp_path / 'cs'} computes what {source} does: logits within" in done.stderr
    assert (tmp_path / "cs" / "model.mdl").is_file()


# --- what is refused ------------------------------------------------------------------------------------------------


def test_a_folder_alone_has_nothing_to_be_compared_with(cs: Path, mmconvert: Run) -> None:
    done = mmconvert("verify", cs, "--forward")
    assert (done.returncode, done.stdout) == (2, "")
    assert "name A and B" in done.stderr


def test_a_tolerance_needs_forward(source: Path, cs: Path, mmconvert: Run) -> None:
    done = mmconvert("verify", source, cs, "--tolerance", 1)
    assert done.returncode == 2
    assert "--tolerance is for --forward" in done.stderr


@pytest.mark.parametrize("tolerance", ["0", "-1", "nan"])
def test_a_tolerance_that_is_none_is_refused(tolerance: str, source: Path, cs: Path, mmconvert: Run) -> None:
    assert mmconvert("verify", source, cs, "--forward", "--tolerance", tolerance).returncode == 2


def test_a_side_without_a_forward_pass_here_is_told(
    source: Path, cs: Path, mmconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install(monkeypatch, Lab({}))
    done = mmconvert("verify", source, cs, "--forward")
    assert (done.returncode, done.stdout) == (4, "")
    assert f"{source}: nothing here computes a mmsimple-llava in format llava" in done.stderr


def test_a_params_file_alone_has_no_forward_pass(cs: Path, tmp_path: Path, mmconvert: Run) -> None:
    done = mmconvert("cs-to-cs", "--src", cs / "config.yaml", "--out", tmp_path / "new", "--verify", "forward")
    assert done.returncode == 2
    assert "is made without weights" in done.stderr


def test_what_a_config_asks_of_transformers_output_does_not_matter(
    make_llama: Make, tmp_path: Path, mmconvert: Run
) -> None:
    """transformers lets configs change what its models give."""
    source = make_llama(tmp_path / "src", edit=tame, return_dict=False, output_hidden_states=True)
    assert mmconvert("verify", source, source, "--forward").returncode == 0


def test_a_broken_index_of_other_files_does_not_matter(make_llama: Make, tmp_path: Path, mmconvert: Run) -> None:
    source = make_llama(tmp_path / "src", edit=tame, shards=2)
    (source / "pytorch_model.bin.index.json").write_text("{")
    assert mmconvert("verify", source, source, "--forward").returncode == 0


def test_two_models_have_nothing_in_common(llama: Path, clip: Path, mmconvert: Run) -> None:
    assert mmconvert("verify", clip, llama, "--forward").returncode == 4


def test_without_torch_what_to_install_is_named_and_nothing_written(
    source: Path, tmp_path: Path, mmconvert: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_without_torch(monkeypatch)
    done = mmconvert("llava-to-cs", "--src", source, "--out", tmp_path / "cs", "--verify", "forward")
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "mmconvert[train]"' in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_in_an_installation_without_torch_it_ends_with_2(source: Path, cs: Path) -> None:
    program = "import sys; sys.modules['torch'] = None; from mmconvert.cli import main; main()"
    command = [sys.executable, "-c", program, "verify", str(source), str(cs), "--forward"]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONWARNINGS": "ignore"})
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "mmconvert[train]"' in done.stderr
    assert "Traceback" not in done.stderr


def test_converting_imports_no_torch_even_where_it_is_installed(source: Path, tmp_path: Path) -> None:
    program = (
        "import sys, mmconvert; mmconvert.convert(*sys.argv[1:], 'cs', fsync=False)\n"
        "assert not {'torch', 'mmsimple', 'transformers'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program, source, tmp_path / "cs"], check=True)


def test_inputs_and_results_are_the_same_every_time(source: Path, cs: Path, mmconvert: Run) -> None:
    first, again = (mmconvert("verify", source, cs, "--forward", "--json").stdout for _ in range(2))
    assert np.isfinite(outputs(CompletedProcess([], 0, first))["logits"]["max_abs"])
    assert first == again
