"""`mmsimple` as a user meets it: what is there, and what each refusal says."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml

import mmsimple as library
from mmconvert import __version__
from mmsimple import cli
from tests.mmsimple.sections import examples

if TYPE_CHECKING:
    from tests.conftest import Run

CONFIGS = Path(library.__file__).parent / "configs"
PHASE_2 = CONFIGS / "params_mm_llava_llama2_7b_phase2.yaml"


def params(folder: Path, **changes: Any) -> Path:
    """A params file of a small model."""
    path = folder / "params.yaml"
    path.write_text(yaml.safe_dump({"model": {**examples.MMSIMPLE, **changes}}), "utf-8")
    return path


def test_without_arguments_it_explains_itself(mmsimple: Run) -> None:
    done = mmsimple()
    assert done.returncode == 0
    words = " ".join(done.stdout.split())
    assert "see mmconvert --help" in words
    for command in ("validate", "prepare", "train", "plot", "generate"):
        assert f"\n  {command} " in done.stdout


def test_help_is_the_same(mmsimple: Run) -> None:
    assert mmsimple("-h").stdout == mmsimple().stdout


def test_the_version_is_the_packages(mmsimple: Run) -> None:
    assert mmsimple("--version").stdout == f"mmsimple, version {__version__}\n"


def test_validate_tells_parts_what_trains_and_memory(mmsimple: Run) -> None:
    done = mmsimple("validate", PHASE_2, "--batch-size", 1)
    assert (done.returncode, done.stderr) == (0, "")
    text = re.sub(r"[^\S\n]+", " ", done.stdout)
    assert "training 6.76 B of 7.06 B parameters: image_model.projection, text_model" in text
    assert "frozen: image_model.image_model_list" in text
    for part in (
        "image_model.image_model_list.0.0 303,507,456 none",
        "image_model.projection 20,979,712 all",
        "text_model 6,738,415,616 all",
    ):
        assert part in text
    for memory in ("weights", "gradients", "optimizer", "activations", "together"):
        assert re.search(rf"{memory} [\d.]+ GB", text), memory
    assert "a step of 1 sample (--batch-size) of 2048 positions (max_position_embeddings)" in text


def test_validate_gives_scripts_one_document(mmsimple: Run) -> None:
    found = json.loads(mmsimple("validate", PHASE_2, "--batch-size", 2, "--sequence-length", 1024, "--json").stdout)
    assert found["schema"] == 1
    assert (found["batch_size"], found["sequence_length"], found["images_per_sample"]) == (2, 1024, 1)
    assert found["model"] == "mmsimple-llava"
    assert found["computed_in"] == "bfloat16"
    parts = {part["name"]: (part["parameters"], part["trained"]) for part in found["parts"]}
    assert parts["image_model.image_model_list.0.0"] == (303_507_456, 0)
    assert found["parameters"] == sum(parameters for parameters, _ in parts.values())
    assert found["trained"] == sum(trained for _, trained in parts.values())
    sizes = found["bytes"]
    assert sizes["weights"] == 4 * found["parameters"]
    assert (sizes["gradients"], sizes["optimizer"]) == (4 * found["trained"], 8 * found["trained"])
    assert sizes["total"] == sum(sizes[name] for name in ("weights", "gradients", "optimizer", "activations"))


def test_validate_takes_the_batch_from_the_file(mmsimple: Run) -> None:
    found = json.loads(mmsimple("validate", PHASE_2, "--sequence-length", 640, "--json").stdout)
    assert found["batch_size"] == 24
    assert any("csx.performance.micro_batch_size" in each for each in found["assumptions"])


def test_a_field_that_does_not_exist_is_refused_with_the_nearest(mmsimple: Run, tmp_path: Path) -> None:
    path = params(tmp_path, text_model={**examples.TEXT, "hiden_size": 48})
    done = mmsimple("validate", path)
    assert (done.returncode, done.stdout) == (3, "")
    assert done.stderr.startswith(f"error: {path}: text_model.hiden_size")
    assert "hidden_size" in done.stderr.partition("text_model.hiden_size")[2]
    assert done.stderr.count("\n") <= 2


def test_patterns_that_leave_nothing_to_train_are_refused_with_the_known_trap(mmsimple: Run, tmp_path: Path) -> None:
    done = mmsimple("validate", params(tmp_path, freeze=["^image_model", "^text_model"]))
    assert (done.returncode, done.stdout) == (2, "")
    assert "leave nothing to train; ^image_model matches the projector image_model.projection too" in done.stderr


def test_a_file_that_is_not_there_is_a_usage_error(mmsimple: Run, tmp_path: Path) -> None:
    done = mmsimple("validate", tmp_path / "none.yaml")
    assert done.returncode == 2
    assert "none.yaml" in done.stderr


def test_without_torch_validate_names_what_to_install(mmsimple: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cli, "find_spec", lambda name: None)
    done = mmsimple("validate", PHASE_2)
    assert (done.returncode, done.stdout) == (2, "")
    assert 'pip install "mmconvert[train]"' in done.stderr
