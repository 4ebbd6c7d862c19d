"""Every trap of modelzoo is sprung by one change to a sound checkpoint, and by that change alone."""

from __future__ import annotations

import json
import re
import shlex
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import h5py
import numpy as np
import pytest
import yaml
from safetensors.numpy import load_file, save_file

from mmconvert import Options, api
from mmconvert.diagnosis import Diagnosis, readers

if TYPE_CHECKING:
    from tests.conftest import Run
    from tests.converters.conftest import Workshop

Change = Callable[[Path], object]
READER = next(each for each in readers() if each.name == "cs")
SOURCES = {"mmsimple": "llava/tiny_src", "tied": "inputs/llama_tied", "llama": "inputs/llama_gqa"}


@pytest.fixture
def mmsimple(workshop: Workshop) -> Path:
    return workshop.convert(workshop.golden / SOURCES["mmsimple"], "cs-2.10")


@pytest.fixture
def tied(workshop: Workshop) -> Path:
    return workshop.convert(workshop.golden / SOURCES["tied"], "cs-2.10")


@pytest.fixture
def llama(workshop: Workshop) -> Path:
    return workshop.convert(workshop.golden / SOURCES["llama"], "cs-2.10")


@pytest.fixture
def mdl(workshop: Workshop) -> Path:
    return workshop.convert(workshop.golden / SOURCES["llama"], "cs-2.10", Options(container="mdl"))


def examine(folder: Path) -> Diagnosis:
    return api.doctor(folder, "cs")


def traps(found: Diagnosis) -> set[str]:
    return {each.trap for each in found.symptoms}


def test_nothing_is_wrong_with_sound_checkpoints(mmsimple: Path, tied: Path, llama: Path, mdl: Path) -> None:
    for folder in (mmsimple, tied, llama, mdl):
        assert examine(folder).symptoms == ()
        assert api.doctor(folder).reader == "cs"


@dataclass(frozen=True)
class Case:
    """A trap, the sound checkpoint and the change that spring it, part of what is said, and what else is found."""

    trap: str
    base: str
    change: Change
    says: str
    also: frozenset[str] = frozenset()
    name: str = ""


def case(trap: str, base: str, change: Change, says: str, *also: str, name: str = "") -> Case:
    return Case(trap, base, change, says, frozenset(also), name or base)


# --- changes ----------------------------------------------------------------------------------------------------------


def section(change: Callable[[dict[str, Any]], object]) -> Change:
    """Change the model section of the params file."""

    def apply(folder: Path) -> None:
        params = yaml.safe_load((folder / "config.yaml").read_text())
        change(params["model"])
        (folder / "config.yaml").write_text(yaml.safe_dump(params))

    return apply


def fields(**values: Any) -> Change:
    return section(lambda model: model.update(values))


def encoder(model: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = model["image_model_list"]["image_models"][0]["image_encoder"]
    return found


def tensors(change: Callable[[dict[str, Any]], object]) -> Change:
    def apply(folder: Path) -> None:
        found = load_file(folder / "model.safetensors")
        change(found)
        save_file(found, folder / "model.safetensors", {"format": "pt"})

    return apply


def pop(key: str) -> Change:
    return tensors(lambda found: found.pop(key))


def prefix(found: dict[str, Any]) -> None:
    for key in list(found):
        found[f"model.{key}"] = found.pop(key)


def forget_success(folder: Path) -> None:
    with h5py.File(folder / "model.mdl", "r+") as file:
        del file.attrs["__SUCCESS__"]


def two_mdl(folder: Path) -> None:
    (folder / "model.mdl").rename(folder / "checkpoint_1.mdl")
    shutil.copy(folder / "checkpoint_1.mdl", folder / "checkpoint_2.mdl")


def two_params(folder: Path) -> None:
    (folder / "config.yaml").rename(folder / "a.yaml")
    shutil.copy(folder / "a.yaml", folder / "b.yaml")


def become_hugging_face(folder: Path) -> None:
    (folder / "config.yaml").unlink()
    (folder / "config.json").write_text(json.dumps({"model_type": "llama"}))


def forget_manifest(folder: Path) -> None:
    (folder / "mmconvert.json").unlink()


def both(*changes: Change) -> Change:
    return lambda folder: [change(folder) for change in changes]


CASES = [
    # --- which files
    case("no-cs-checkpoint", "llama", become_hugging_face, "holds no .mdl, and no weights with a params file"),
    case("several-checkpoints", "mdl", two_mdl, "holds 2 .mdl files, such as checkpoint_2.mdl"),
    case("params-missing", "llama", lambda folder: (folder / "config.yaml").unlink(), "holds no params file"),
    case("params-ambiguous", "llama", two_params, "holds a.yaml, b.yaml, and none of them is config.yaml"),
    case("unknown-model", "llama", fields(name="gpt2"), "model name 'gpt2' is none that is known here"),
    case("unreadable", "mdl", forget_success, "partially written checkpoint: __SUCCESS__ is missing"),
    case(
        "unreadable",
        "mdl",
        lambda folder: (folder / "model.mdl").write_bytes((folder / "model.mdl").read_bytes()[:4000]),
        "model.mdl",
        name="truncated",
    ),
    # --- the model section
    case("fields-refused", "mmsimple", fields(label_smoothing=0.0), "config.yaml: label_smoothing is set"),
    case("fields-refused", "mmsimple", fields(z_loss_eps=0.0), "config.yaml: z_loss_eps is set", name="z-loss"),
    case("fields-refused", "llama", fields(norm_first=True), "config.yaml: norm_first is set"),
    case(
        "fields-refused",
        "mmsimple",
        section(lambda model: model["text_model"].update(norm_first=True, use_ff_layer1_dropout=False)),
        "text_model.norm_first is set",
        name="decoder",
    ),
    case(
        "fields-refused",
        "mmsimple",
        section(lambda model: encoder(model).update(num_classes=24, use_bias_in_output=False)),
        "image_encoder.num_classes is set",
        name="encoder",
    ),
    case("config-invalid", "llama", fields(hidden_sizes=3), "hidden_sizes: no such field; did you mean hidden_size?"),
    case("name-missing", "llama", section(lambda model: model.pop("name")), "has no name (it is llama)"),
    case(
        "name-missing-later",
        "llama",
        both(forget_manifest, section(lambda model: model.pop("name"))),
        "has no name (it is llama)",
    ),
    case("nothing-trains", "mmsimple", fields(freeze=["^image_model", "^text_model"]), "which matches every tensor"),
    case("projector-frozen", "mmsimple", fields(freeze=["^image_model"]), "which matches image_model.projection"),
    # --- tensors
    case("model-prefix", "llama", tensors(prefix), "begin with model."),
    case("second-copy-missing", "tied", pop("lm_head.weight"), "lm_head.weight is missing, a second copy of"),
    case("second-copy-missing", "llama", pop("ln_f.weight"), "ln_f.weight is missing, a second copy of"),
    case("second-copy-missing", "mmsimple", pop("text_model.ln_f.weight"), "text_model.ln_f.weight is missing"),
    case("tensors-missing", "llama", pop("lm_head.weight"), "lm_head.weight: demanded by config.yaml"),
    case("tensor-shapes", "llama", fields(vocab_size=9), "9 x 48 by config.yaml"),
    case(
        "tensor-shapes",
        "llama",
        tensors(lambda found: found.update({"ln_f.weight": np.zeros(7, np.float32)})),
        "ln_f.weight: 7 in the weights",
        name="second-copy",
    ),
    case(
        "tensors-unknown",
        "llama",
        tensors(lambda found: found.update({"stray": np.zeros(1, np.float32)})),
        "stray: no part of the model",
    ),
]


@pytest.mark.parametrize("each", CASES, ids=lambda each: f"{each.trap}-{each.name}")
def test_one_change_springs_one_trap(each: Case, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(each.base)
    each.change(folder)
    found = examine(folder)
    assert traps(found) == {each.trap} | each.also
    assert each.says in " ".join(symptom.what for symptom in found.symptoms)


def test_every_trap_is_sprung() -> None:
    assert {each.trap for each in CASES} == {trap.name for trap in READER.traps}


# --- mending ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("trap", ["model-prefix", "second-copy-missing", "name-missing-later"])
def test_the_command_that_is_named_mends(
    trap: str, request: pytest.FixtureRequest, mmconvert: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    chosen = next(each for each in CASES if each.trap == trap)
    folder: Path = request.getfixturevalue(chosen.base)
    chosen.change(folder)
    (symptom,) = examine(folder).symptoms
    command = re.search(r"`mmconvert (.*?)`", symptom.mend)
    assert command is not None
    done = mmconvert(*shlex.split(command[1]), "--no-fsync")
    assert done.returncode == 0, done.stderr
    assert examine(Path("NEW")).symptoms == ()


def test_a_hugging_face_folder_is_mended_by_its_command(workshop: Workshop, mmconvert: Run) -> None:
    source = workshop.draft("inputs/llama_gqa").path
    (symptom,) = examine(source).symptoms
    assert symptom.mend == f"`mmconvert convert --src {source} --to cs --out NEW`"
    out = workshop.new()
    mmconvert("convert", "--src", source, "--to", "cs", "--out", out, "--no-fsync")
    assert examine(out).symptoms == ()


# --- finer points -----------------------------------------------------------------------------------------------------


def test_what_the_reference_writes_is_seen_in_its_own_files(workshop: Workshop) -> None:
    folder = workshop.new()
    folder.mkdir()
    shutil.copy(workshop.golden / "mdl/mmsimple_trainer_checkpoint_3.mdl", folder / "model.mdl")
    shutil.copy(workshop.golden / "mdl/mmsimple_trainer_params.yaml", folder / "config.yaml")
    found = examine(folder)
    assert traps(found) == {"fields-refused", "projector-frozen", "model-prefix"}
    assert len([each for each in found.symptoms if each.trap == "fields-refused"]) == 6


def test_a_tied_checkpoint_of_the_reference_lacks_its_head(workshop: Workshop, tied: Path) -> None:
    shutil.copy(workshop.golden / "mdl/llama_tied_cs-2.4.mdl", tied / "model.mdl")
    (tied / "model.safetensors").unlink()
    (symptom,) = examine(tied).symptoms
    assert "lm_head.weight is missing, a second copy of embedding_layer.word_embeddings.weight" in symptom.what


def test_freezing_the_tower_alone_is_sound(mmsimple: Path) -> None:
    fields(freeze=["^image_model.image_model_list", "^text_model"])(mmsimple)
    assert examine(mmsimple).symptoms == ()


def test_a_pattern_that_could_run_away_is_not_run(mmsimple: Path) -> None:
    fields(freeze=["(i+)+$", "^image_model"])(mmsimple)
    assert traps(examine(mmsimple)) == {"projector-frozen"}


def test_the_params_inside_a_checkpoint_will_do(mdl: Path) -> None:
    (mdl / "config.yaml").unlink()
    assert examine(mdl).symptoms == ()


@pytest.mark.parametrize("junk", [None, 0, 1.5, "", "x", [1], {"a": 1}, 2**70])
@pytest.mark.parametrize("base", ["mmsimple", "llama"])
def test_no_value_of_a_field_makes_it_stumble(base: str, junk: object, request: pytest.FixtureRequest) -> None:
    folder: Path = request.getfixturevalue(base)
    text = (folder / "config.yaml").read_text()
    params = yaml.safe_load(text)
    for name in {*params["model"], "freeze", "extra_attention_params"}:
        (folder / "config.yaml").write_text(yaml.safe_dump({"model": {**params["model"], name: junk}}))
        examine(folder)
    for document in (junk, {"model": junk}, {"trainer": junk}, {"trainer": {"init": junk}}):
        (folder / "config.yaml").write_text(yaml.safe_dump(document))
        examine(folder)
