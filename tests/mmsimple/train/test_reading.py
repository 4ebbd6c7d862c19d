"""A run out of its params file: every key that the two LLaVA configs have, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

import mmsimple
from mmconvert.errors import UsageError
from mmconvert.paths import put, without
from mmsimple.data.section import DataConfig
from mmsimple.train.config import Checkpointing, Loop, Performance, Precision, TrainConfig
from mmsimple.train.optimizer import AdamWConfig
from mmsimple.train.reading import read_run_file
from tests.mmsimple.data.test_section import SECTION
from tests.mmsimple.sections import examples

CONFIGS = Path(mmsimple.__file__).parent / "configs"
PHASES = [CONFIGS / f"params_mm_llava_llama2_7b_phase{phase}.yaml" for phase in (1, 2)]
RUN: dict[str, Any] = {
    "trainer": {
        "init": {
            "model": examples.MMSIMPLE,
            "optimizer": {"AdamW": {}},
            "schedulers": [{"ConstantLR": {"learning_rate": 1e-3}}],
            "loop": {"max_steps": 5},
        }
    }
}


def write(folder: Path, document: Any) -> Path:
    (folder / "params.yaml").write_text(yaml.safe_dump(document), "utf-8")
    return folder / "params.yaml"


@pytest.fixture
def read(tmp_path: Path) -> Any:
    """`read(**changes)`: the small run with values at paths below `trainer`; two underscores stand for a dot."""

    def read(*settings: str, **changes: Any) -> TrainConfig:
        document: Any = RUN
        for path, value in changes.items():
            document = put(document, f"trainer.{path.replace('__', '.')}", value)
        return read_run_file(write(tmp_path, document), settings)

    return read


def refuse(read: Any, *said: str, **changes: Any) -> None:
    with pytest.raises(UsageError) as caught:
        read(**changes)
    message = str(caught.value)
    assert "\n" not in message
    assert "params.yaml: " in message
    for each in said:
        assert each in message, message


@pytest.mark.parametrize("path", PHASES, ids=["phase1", "phase2"])
def test_the_llava_configs_are_read_whole(path: Path) -> None:
    run = read_run_file(path)
    assert (run.backend, run.seed, run.log_steps, run.compute_norm) == ("CSX", 1, 10, True)
    assert run.optimizer == AdamWConfig((0.9, 0.999), 1e-8, 0.0, True)
    assert [run.schedule(step) for step in (0, 1, 50, 100, 1300, 9999)] == pytest.approx(
        [0, 1e-5, 5e-4, 1e-3, 5.25e-4, 5e-5]
    )
    assert run.precision == Precision("bfloat16", None, 1.0, None, False)
    assert run.loop == Loop(2500, None, 10, 500, 1)
    assert run.checkpointing == Checkpointing(500, 1, False, True, True)
    assert (run.micro_batch_size, run.validation_micro_batch_size) == (24, 24)
    assert not run.load_whole
    assert run.train_data is not None
    assert run.train_data.batch_size == (220 if path is PHASES[0] else 216)
    assert [each.sources[0].folders[0].name for each in run.validation_data] == ["val"]
    assert run.model.freeze[0] == "^image_model.image_model_list"


def test_what_a_file_does_not_say_is_the_default(read: Any) -> None:
    run = read()
    assert (run.backend, run.seed, run.log_steps, run.compute_norm) == ("CSX", None, 1, False)
    assert run.precision == Precision()
    assert run.loop == Loop(max_steps=5)
    assert run.checkpointing == Checkpointing()
    assert run.performance == Performance(compile=False, activation_checkpointing=False, cache="none", cache_dir=None)
    assert (run.ckpt_path, run.load_whole, run.train_data, run.validation_data) == (None, True, None, ())
    assert run.params == RUN


def test_settings_change_the_file_as_yaml_has_it(read: Any) -> None:
    run = read(
        "trainer.init.seed=3",
        "trainer.init.schedulers.0.ConstantLR.learning_rate=1e-4",
        "trainer.init.model.freeze=[^text_model]",
        "trainer.init.precision={enabled: true, fp16_type: bfloat16}",
    )
    assert (run.seed, run.schedule(0), run.model.freeze) == (3, 1e-4, ("^text_model",))
    assert run.precision.half == "bfloat16"
    assert run.params["trainer"]["init"]["seed"] == 3


def test_what_a_run_may_cost_is_said_apart(read: Any) -> None:
    said = {"compile": True, "activation_checkpointing": True, "cache": "features", "cache_dir": "kept"}
    assert read(init__performance=said).performance == Performance(True, True, "features", Path("kept"))


@pytest.mark.parametrize(
    "setting", ["trainer.init.seed", "=3", "", "trainer.init.seed=[", "trainer.init.schedulers.x=1"]
)
def test_settings_that_are_none_are_refused(setting: str, read: Any) -> None:
    with pytest.raises(UsageError):
        read(setting)


def test_a_setting_of_nothing_is_refused_with_the_nearest(read: Any) -> None:
    with pytest.raises(UsageError, match=r"trainer\.init\.sed: no such field; did you mean seed\?"):
        read("trainer.init.sed=3")


@pytest.mark.parametrize(
    ("precision", "expected"),
    [
        (None, Precision()),
        ({"enabled": False, "fp16_type": "float16"}, Precision()),
        ({"fp16_type": "cbfloat16"}, Precision("bfloat16")),
        ({"fp16_type": "float16", "loss_scaling_factor": "dynamic"}, Precision("float16", None)),
        ({"loss_scaling_factor": 128, "max_gradient_value": 2}, Precision("float16", 128.0, None, 2)),
    ],
)
def test_a_precision_says_what_is_computed_in(precision: Any, expected: Precision, read: Any) -> None:
    assert read(init__precision=precision).precision == expected


def data(name: str) -> dict[str, Any]:
    return {**SECTION, "data_dir": name}


def names(found: tuple[DataConfig, ...]) -> list[str]:
    return [str(each.sources[0].folders[0]) for each in found]


def test_validation_data_stand_in_any_of_three_places(read: Any) -> None:
    places = {
        "fit": {"train_dataloader": data("t"), "val_dataloader": data("f")},
        "validate": {"val_dataloader": data("v")},
        "validate_all": {"val_dataloaders": [data("a"), data("b")]},
    }
    assert names(read(**places).validation_data) == ["a", "b"]
    assert names(read(**{**places, "validate_all": {"val_dataloaders": data("c")}}).validation_data) == ["c"]
    del places["validate_all"]
    assert names(read(**places).validation_data) == ["v"]
    del places["validate"]
    found = read(**places)
    assert names(found.validation_data) == ["f"]
    assert names((found.train_data,)) == ["t"]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"inti": {}}, "trainer.inti: no such field; did you mean init?"),
        ({"init__optimzer": {}}, "trainer.init.optimzer: no such field; did you mean optimizer?"),
        ({"init__model__text_model__hiden_size": 4}, "text_model.hiden_size: no such field; did you mean hidden_size?"),
        ({"init__precision": {"fp16_typ": "bfloat16"}}, "precision.fp16_typ: no such field; did you mean fp16_type?"),
        ({"init__loop": {"max_step": 5}}, "loop.max_step: no such field; did you mean max_steps?"),
        ({"init__loop": {}}, "give one of max_steps and max_epochs"),
        ({"init__loop": {"max_steps": 5, "max_epochs": 1}}, "give one of max_steps and max_epochs"),
        ({"init__loop": {"max_steps": True}}, "loop.max_steps is true"),
        ({"init__loop": {"max_steps": 0}}, "loop.max_steps is 0: it must be a whole number, at least 1"),
        ({"init__precision": {"max_gradient_norm": 1, "max_gradient_value": 1}}, "give one of max_gradient_norm"),
        ({"init__precision": {"enabled": "yes"}}, "precision.enabled is yes: it must be true or false"),
        ({"init__seed": -1}, "trainer.init.seed is -1"),
        ({"init__backend": {"backend_type": "TPU"}}, "backend_type is TPU: it must be CSX or CPU or GPU"),
        ({"init__callbacks": {}}, "callbacks is {}: it must be a list of callbacks"),
        (
            {"init__callbacks": [{"ComputeNorms": {}}]},
            "callbacks.0.ComputeNorms: no such callback; did you mean ComputeNorm?",
        ),
        ({"init__callbacks": [{"ComputeNorm": {}}, {"ComputeNorm": {}}]}, "callbacks.1.ComputeNorm is given twice"),
        ({"init__callbacks": [{"KeepNCheckpoints": {"n": 0}}]}, "KeepNCheckpoints.n is 0"),
        ({"init__callbacks": [{"ScopedTrainFlags": {"csx.performance.micro_batch_sise": 2}}]}, "micro_batch_size?"),
        ({"init__checkpoint": {"steps": "often"}}, "checkpoint.steps is often"),
        ({"init__logging": {"log_steps": 0}}, "logging.log_steps is 0"),
        ({"init__performance": {"cahce": "none"}}, "performance.cahce: no such field; did you mean cache?"),
        ({"init__performance": {"cache": True}}, "performance.cache is true: it must be none or features"),
        ({"init__performance": {"compile": "yes"}}, "performance.compile is yes: it must be true or false"),
        ({"init__model__freeze": "x"}, "freeze"),
        (
            {"fit": {"train_dataloader": {**SECTION, "bach_size": 1}}},
            "trainer.fit.train_dataloader.bach_size: no such field",
        ),
        ({"fit": {"train_data": SECTION}}, "trainer.fit.train_data: no such field; did you mean train_dataloader?"),
        ({"fit": {"ckpt_path": 3}}, "trainer.fit.ckpt_path is 3"),
        ({"validate_all": {"val_dataloaders": [{**SECTION, "batch_size": 0}]}}, "val_dataloaders.0.batch_size"),
    ],
)
def test_what_makes_no_sense_is_named_with_its_path(changes: dict[str, Any], said: str, read: Any) -> None:
    refuse(read, said, **changes)


@pytest.mark.parametrize("name", ["optimizer", "schedulers", "loop"])
def test_what_a_run_needs_is_missed(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=rf"trainer\.init\.{name} is missing"):
        read_run_file(write(tmp_path, without(RUN, f"trainer.init.{name}")))


@pytest.mark.parametrize(
    ("document", "said"),
    [
        ({"model": examples.MMSIMPLE}, "mmconvert cs-to-cs"),
        ({**RUN, "model": examples.MMSIMPLE}, "model"),
        ([], "params.yaml"),
        ({"trainer": [RUN["trainer"]]}, "one"),
        (
            {"trainer": {"init": {"model": {**examples.LLAMA, "name": "llama"}}}},
            "mmsimple trains models of images and text",
        ),
    ],
)
def test_what_is_no_run_is_refused(document: Any, said: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=said):
        read_run_file(write(tmp_path, document))
