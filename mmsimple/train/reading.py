"""A run of training out of its params file: every section under `trainer`, each field read or refused."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmconvert import api
from mmconvert.documents import dump_yaml, parse_yaml, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.paths import put
from mmsimple import sections
from mmsimple.config import MultimodalConfig
from mmsimple.data.fields import SWITCH, Kind, one_of
from mmsimple.data.section import DataConfig, read_data
from mmsimple.sections.supported import below, check_names, require, shown
from mmsimple.temporary import temporary_folder
from mmsimple.train.config import Checkpointing, Loop, Performance, Precision, TrainConfig
from mmsimple.train.entries import POSITIVE, is_integer, read_fields, read_name
from mmsimple.train.optimizer import read_optimizer
from mmsimple.train.schedules import read_schedules
from mmsimple.workload import CHOSEN, HALVES, MICRO_BATCH_SIZE

ROOT = "trainer"
COUNT = Kind("a whole number, at least 1", lambda value: is_integer(value, 1))
COUNT_OR_NULL = Kind(f"{COUNT.words}, or null", lambda value: value is None or COUNT.holds(value))
SEED = Kind("a whole number from 0 on, or null", lambda value: value is None or is_integer(value, 0))
POSITIVE_OR_NULL = Kind(f"{POSITIVE.words}, or null", lambda value: value is None or POSITIVE.holds(value))
SCALE = Kind("a number above 0, or dynamic", lambda value: value in (None, "dynamic") or POSITIVE.holds(value))
MICRO_BATCH = Kind(
    f"a whole number of samples, at least 1, or {', '.join(CHOSEN)}",
    lambda value: value in (None, *CHOSEN) or isinstance(value, Mapping) or COUNT.holds(value),
)
PATH_OR_NULL = Kind("a path, or null", lambda value: value is None or (isinstance(value, str) and value != ""))

Fields = Mapping[str, Kind]

BACKEND: Fields = {"backend_type": one_of("CSX", "CPU", "GPU")}
PRECISION: Fields = {
    "enabled": SWITCH,
    "fp16_type": one_of(*HALVES),
    "loss_scaling_factor": SCALE,
    "max_gradient_norm": POSITIVE_OR_NULL,
    "max_gradient_value": POSITIVE_OR_NULL,
    "log_loss_scale": SWITCH,
}
PRECISION_DEFAULTS = {
    "enabled": True,
    "fp16_type": "float16",
    "loss_scaling_factor": "dynamic",
    "max_gradient_norm": None,
    "max_gradient_value": None,
    "log_loss_scale": False,
}
LOOP: Fields = {
    "max_steps": COUNT_OR_NULL,
    "max_epochs": COUNT_OR_NULL,
    "eval_steps": COUNT_OR_NULL,
    "eval_frequency": COUNT_OR_NULL,
    "grad_accum_steps": COUNT,
}
LOOP_DEFAULTS = {**dict.fromkeys(("max_steps", "max_epochs", "eval_steps", "eval_frequency")), "grad_accum_steps": 1}
CHECKPOINT: Fields = {
    "steps": COUNT_OR_NULL,
    "disable_strict_checkpoint_loading": SWITCH,
    "save_initial_checkpoint": SWITCH,
    "autoload_last_checkpoint": SWITCH,
}
CHECKPOINT_DEFAULTS = {
    "steps": None,
    "disable_strict_checkpoint_loading": False,
    "save_initial_checkpoint": False,
    "autoload_last_checkpoint": True,
}
PERFORMANCE: Fields = {
    "compile": SWITCH,
    "activation_checkpointing": SWITCH,
    "cache": one_of("none", "features"),
    "cache_dir": PATH_OR_NULL,
}
PERFORMANCE_DEFAULTS = {"compile": False, "activation_checkpointing": False, "cache": "none", "cache_dir": None}
LOGGING: Fields = {"log_steps": COUNT}
# What a callback may say; those of flags are about the hardware but for the micro batch.
FLAGS: Fields = {MICRO_BATCH_SIZE: MICRO_BATCH}
CALLBACKS: dict[str, Fields] = {
    "ScopedTrainFlags": FLAGS,
    "ScopedValidateFlags": FLAGS,
    "ComputeNorm": {},
    "LoadCheckpointStates": {"load_checkpoint_states": one_of("model", "all")},
    "KeepNCheckpoints": {"n": COUNT_OR_NULL},
}
CALLBACK_DEFAULTS: dict[str, Any] = {MICRO_BATCH_SIZE: None, "load_checkpoint_states": "all", "n": None}
INIT = (
    "backend",
    "seed",
    "model",
    "optimizer",
    "schedulers",
    "precision",
    "loop",
    "checkpoint",
    "logging",
    "callbacks",
    "performance",
)
SECTIONS = {
    "init": INIT,
    "fit": ("train_dataloader", "val_dataloader", "ckpt_path"),
    "validate": ("val_dataloader", "ckpt_path"),
    "validate_all": ("val_dataloaders", "ckpt_paths"),
}


def read_run_file(path: Path, settings: Sequence[str] = ()) -> TrainConfig:
    """The run that a params file describes; `settings` such as `trainer.init.seed=3` change it.

    Raises UsageError, naming file and field, for whatever is wrong with it: it is what the user asks for.
    """
    try:
        document = with_settings(read_yaml(path), settings)
        return read_run(document, read_model(document, path), str(path))
    except InputRefused as error:
        raise UsageError(str(error)) from error


def with_settings(document: Any, settings: Iterable[str]) -> Any:
    """A document with values at dotted paths, as YAML has them: `a.b=1e-4`. Raises UsageError for another spelling."""
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not (path and equals):
            raise UsageError(f"--set {setting!r:.80}: write a path and a value, such as trainer.init.seed=3")
        try:
            document = put(document, path, parse_yaml(text.encode(), f"--set {path}"))
        except (InputRefused, ValueError, TypeError) as error:
            raise UsageError(f"--set {setting!r:.80}: {error}") from error
    return document


def read_model(document: Any, path: Path) -> MultimodalConfig:
    """The model of a params document of any release's spelling, as mmconvert recognises it. Raises DiskError too."""
    with temporary_folder({path.name: dump_yaml(document)}) as folder:
        copy = folder / path.name
        try:
            found = api.recognise(copy)
        except InputRefused as error:
            raise InputRefused(str(error).replace(str(copy), str(path))) from error
    config = sections.read(found.node.model, found.config, str(path))
    fits = isinstance(config, MultimodalConfig)
    require(fits, str(path), f"describes a {found.node.model}; mmsimple trains models of images and text")
    assert isinstance(config, MultimodalConfig)
    return config


def read_run(document: Any, model: MultimodalConfig, where: str) -> TrainConfig:
    """The run under `trainer` of the document of a file `where`, whose model is read already.

    Raises InputRefused, naming file and field, for a field that does not exist, with the nearest that does, and for
    values that make no sense.
    """
    flat = "keeps its run in flat sections; `mmconvert cs-to-cs` makes a trainer file of it"
    require(isinstance(document, Mapping) and ROOT in document, where, flat)
    check_names(document, (ROOT,), where, "")
    trainer = _mapping(document[ROOT], where, ROOT)
    check_names(trainer, SECTIONS, where, ROOT)
    parts = {name: _mapping(trainer.get(name), where, below(ROOT, name)) for name in SECTIONS}
    for name, known in SECTIONS.items():
        check_names(parts[name], known, where, below(ROOT, name))
    init, at = parts["init"], below(ROOT, "init")
    for name in ("optimizer", "schedulers", "loop"):
        require(name in init, where, f"{below(at, name)} is missing")
    callbacks = _callbacks(init.get("callbacks"), where, below(at, "callbacks"))
    loop = Loop(**_fields(init, "loop", LOOP, LOOP_DEFAULTS, where))
    both = loop.max_steps is not None and loop.max_epochs is not None
    neither = loop.max_steps is None and loop.max_epochs is None
    require(not (both or neither), where, f"{at}.loop: give one of max_steps and max_epochs")
    checkpoint = _fields(init, "checkpoint", CHECKPOINT, CHECKPOINT_DEFAULTS, where)
    fit = parts["fit"]
    several = parts["validate_all"].get("ckpt_paths")
    one = "mmsimple measures one checkpoint at a time, which --init-from names; it must be null"
    require(several is None, where, f"{ROOT}.validate_all.ckpt_paths: {one}")
    return TrainConfig(
        params=document,
        model=model,
        backend=_fields(init, "backend", BACKEND, {"backend_type": "CSX"}, where)["backend_type"],
        seed=SEED.checked(init.get("seed"), where, below(at, "seed")),
        optimizer=read_optimizer(init["optimizer"], where, below(at, "optimizer")),
        schedule=read_schedules(init["schedulers"], where, below(at, "schedulers")),
        precision=_precision(init, where),
        loop=loop,
        checkpointing=Checkpointing(
            steps=checkpoint["steps"],
            keep=callbacks["KeepNCheckpoints"]["n"],
            save_initial=checkpoint["save_initial_checkpoint"],
            autoload_last=checkpoint["autoload_last_checkpoint"],
            strict=not checkpoint["disable_strict_checkpoint_loading"],
        ),
        log_steps=_fields(init, "logging", LOGGING, {"log_steps": 1}, where)["log_steps"],
        performance=_performance(init, where),
        compute_norm="ComputeNorm" in callbacks["given"],
        micro_batch_size=_samples(callbacks["ScopedTrainFlags"]),
        validation_micro_batch_size=_samples(callbacks["ScopedValidateFlags"]),
        ckpt_path=_path(fit, where, "trainer.fit"),
        validation_ckpt_path=_path(parts["validate"], where, "trainer.validate"),
        load_whole=callbacks["LoadCheckpointStates"]["load_checkpoint_states"] == "all",
        train_data=_data(fit, "train_dataloader", where, "trainer.fit"),
        validation_data=tuple(_validation(parts, where)),
    )


def _mapping(section: Any, where: str, path: str) -> Mapping[str, Any]:
    """A section, empty where it is absent."""
    require(section is None or isinstance(section, Mapping), where, f"{path} is {shown(section)}: it must be a mapping")
    return section or {}


def _fields(init: Mapping[str, Any], name: str, kinds: Fields, defaults: Mapping[str, Any], where: str) -> Any:
    at = f"{ROOT}.init.{name}"
    return read_fields(_mapping(init.get(name), where, at), kinds, defaults, where, at)


def _precision(init: Mapping[str, Any], where: str) -> Precision:
    full = _fields(init, "precision", PRECISION, PRECISION_DEFAULTS, where)
    norm, value = full["max_gradient_norm"], full["max_gradient_value"]
    at = f"{ROOT}.init.precision"
    require(norm is None or value is None, where, f"{at}: give one of max_gradient_norm and max_gradient_value")
    # A file without the section computes in float32.
    is_on = full["enabled"] and init.get("precision") is not None
    scale = full["loss_scaling_factor"]
    return Precision(
        half=HALVES[full["fp16_type"]] if is_on else None,
        loss_scaling_factor=None if scale in (None, "dynamic") else float(scale),
        max_gradient_norm=norm,
        max_gradient_value=value,
        log_loss_scale=full["log_loss_scale"],
    )


def _performance(init: Mapping[str, Any], where: str) -> Performance:
    full = _fields(init, "performance", PERFORMANCE, PERFORMANCE_DEFAULTS, where)
    folder = full["cache_dir"]
    return Performance(**{**full, "cache_dir": None if folder is None else Path(folder)})


def _callbacks(section: Any, where: str, path: str) -> dict[str, Any]:
    """What each callback says, those that are not there by their defaults; `given` has the names of those that are."""
    entries = [] if section is None else section
    require(isinstance(entries, list), where, f"{path} is {shown(section)}: it must be a list of callbacks")
    found = {name: {field: CALLBACK_DEFAULTS[field] for field in fields} for name, fields in CALLBACKS.items()}
    given: set[str] = set()
    for number, entry in enumerate(entries):
        name, fields, at = read_name(entry, "callback", CALLBACKS, CALLBACKS, where, below(path, str(number)))
        require(name not in given, where, f"{at} is given twice")
        given.add(name)
        kinds = CALLBACKS[name]
        found[name] = read_fields(fields, kinds, {each: CALLBACK_DEFAULTS[each] for each in kinds}, where, at)
    return {**found, "given": given}


def _samples(flags: Mapping[str, Any]) -> int | None:
    size = flags[MICRO_BATCH_SIZE]
    return size if isinstance(size, int) else None


def _path(section: Mapping[str, Any], where: str, at: str) -> Path | None:
    path = PATH_OR_NULL.checked(section.get("ckpt_path"), where, below(at, "ckpt_path"))
    return None if path is None else Path(path)


def _data(section: Mapping[str, Any], name: str, where: str, path: str) -> DataConfig | None:
    return None if section.get(name) is None else read_data(section[name], where, below(path, name))


def _validation(parts: Mapping[str, Mapping[str, Any]], where: str) -> Iterable[DataConfig]:
    """The validation data: of `validate_all`, else of `validate`, else of `fit`; each is checked where it stands."""
    several, at = parts["validate_all"].get("val_dataloaders"), "trainer.validate_all.val_dataloaders"
    entries = several if isinstance(several, list) else [] if several is None else [several]
    paths = [f"{at}.{number}" for number in range(len(entries))] if isinstance(several, list) else [at]
    all_of_them = [read_data(entry, where, path) for entry, path in zip(entries, paths, strict=False)]
    ones = [_data(parts[name], "val_dataloader", where, below(ROOT, name)) for name in ("validate", "fit")]
    return all_of_them or [each for each in ones if each is not None][:1]
