"""What is irregular under `trainer:`, taken out of the way of the table of moves and put back.

Callbacks and loggers are lists of `{Name: arguments}`, the optimizer is `{Name: arguments}`, and one dataloader and one
checkpoint path stand in up to three places. Taken apart, each of these is one mapping or one value in one place, and
the learning rate is spelled as in a flat file; `taken_apart` and `put_together` undo each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.params.schedulers import Unsaid, named, to_flat, to_trainer
from mmconvert.paths import ABSENT, get, put, without
from mmconvert.remark import Remark

LISTS = ("init.callbacks", "init.loggers")
OPTIMIZER, SCHEDULERS = "init.optimizer", "init.schedulers"
RATE = "optimizer.learning_rate"
# One value in several places: the first is the one in the table.
COPIES = (
    ("validate.val_dataloader", "fit.val_dataloader", "validate_all.val_dataloaders"),
    ("fit.ckpt_path", "validate.ckpt_path", "validate_all.ckpt_paths"),
)
PLURAL = {paths[-1] for paths in COPIES}
# A section is only written where it has its data.
DATA = {"fit": "train_dataloader", "validate": "val_dataloader", "validate_all": "val_dataloaders"}

Document = Mapping[str, Any]
Result = tuple[dict[str, Any], tuple[Remark, ...]]


def put_together(plain: Document) -> Result:
    """The tree under `trainer:` made of one that is taken apart, and what of the flat file found no place in it.

    Raises ValueError, naming the path in the flat file, for a learning rate that is not shaped as expected.
    """
    remarks: list[Remark] = []
    tree: Any = dict(plain)
    for path in LISTS:
        if (entries := get(tree, path)) is not ABSENT:
            tree = put(tree, path, [{name: arguments} for name, arguments in entries.items()])
    if (rate := get(tree, SCHEDULERS)) is not ABSENT:
        tree = without(tree, SCHEDULERS)
        try:
            tree = put(tree, SCHEDULERS, to_trainer(rate, _is_scaled(tree), RATE))
        except Unsaid as error:
            remarks.append(Remark(RATE, str(error)))
    if (optimizer := get(tree, OPTIMIZER)) is not ABSENT:
        name = optimizer.get("optimizer_type")
        tree = without(tree, OPTIMIZER)
        if isinstance(name, str):
            tree = put(tree, OPTIMIZER, {name: without(optimizer, "optimizer_type")})
        else:
            why = "belongs to no optimizer: optimizer.optimizer_type names none"
            remarks += [Remark(f"optimizer.{key}", why) for key in optimizer]
    return _spread(tree, remarks), tuple(remarks)


def _is_scaled(tree: Any) -> bool:
    return get(tree, f"{OPTIMIZER}.adjust_learning_rate") not in (ABSENT, None, {})


def _spread(tree: Any, remarks: list[Remark]) -> dict[str, Any]:
    """The tree with what has copies copied, and without the sections that have no data."""
    for path, *copies in COPIES:
        value = get(tree, path)
        for copy in copies if value is not ABSENT else ():
            tree = put(tree, copy, value)
    checkpoint = get(tree, "fit.ckpt_path")
    kept = {name: value for name, value in tree.items() if name not in DATA or DATA[name] in value}
    if checkpoint is not ABSENT and not DATA.keys() & kept.keys():
        remarks.append(Remark("runconfig.checkpoint_path", "goes with train_input or eval_input, and neither is there"))
    return kept


def taken_apart(trainer: Document) -> Result:
    """The tree under `trainer:` with every irregularity taken out of it, and what a flat file cannot say of it.

    Raises ValueError, naming the path, for what is not shaped as expected.
    """
    remarks: list[Remark] = []
    tree: Any = dict(trainer)
    for path in ("init", *DATA, *COPIES[0], *LISTS, OPTIMIZER, SCHEDULERS):
        if get(tree, path) is None:
            tree = without(tree, path)
    for section in ("init", *DATA):
        if section in tree and not isinstance(tree[section], Mapping):
            raise ValueError(f"trainer.{section} is {tree[section]!r:.60}, but must be a mapping")
    for path in LISTS:
        if (entries := get(tree, path)) is not ABSENT:
            tree = put(tree, path, _by_name(entries, f"trainer.{path}", remarks))
    if (optimizer := get(tree, OPTIMIZER)) is not ABSENT:
        name, arguments = named(optimizer, f"trainer.{OPTIMIZER}")
        tree = put(tree, OPTIMIZER, {"optimizer_type": name, **arguments})
    if (schedulers := get(tree, SCHEDULERS)) is not ABSENT:
        tree = without(tree, SCHEDULERS)
        path = f"trainer.{SCHEDULERS}"
        try:
            rate, scaled = to_flat(schedulers, path)
            tree = put(tree, SCHEDULERS, rate)
            if scaled and not _is_scaled(tree):
                why = "a flat file scales by optimizer.adjust_learning_rate, and the optimizer has none"
                remarks.append(Remark(f"{path}.0.ScalePerParamLR", why))
        except Unsaid as error:
            remarks.append(Remark(path, str(error)))
    return _gathered(tree, remarks), tuple(remarks)


def _by_name(entries: Any, path: str, remarks: list[Remark]) -> dict[str, Any]:
    """A list of `{Name: arguments}` as one mapping."""
    if not isinstance(entries, list):
        raise ValueError(f"{path} is {entries!r:.60}, but must be a list")
    by_name: dict[str, Any] = {}
    for at, entry in enumerate(entries):
        if not isinstance(entry, Mapping) or len(entry) != 1:
            raise ValueError(f"{path}.{at} is {entry!r:.60}, but must be one name with its arguments")
        name, arguments = next(iter(entry.items()))
        if name in by_name:
            remarks.append(
                Remark(f"{path}.{at}.{name}", "stands in the list twice; a flat file has room for the first")
            )
        else:
            by_name[name] = arguments
    return by_name


def _gathered(tree: Any, remarks: list[Remark]) -> dict[str, Any]:
    """The tree with one copy of what has several. A list of one stands for the one."""
    for paths in COPIES:
        found = {path: value for path in paths if (value := get(tree, path)) is not ABSENT}
        for path in found:
            tree = without(tree, path)
        if not found:
            continue
        kept, *others = found
        one = found[kept]
        if kept in PLURAL and isinstance(one, list):
            if len(one) != 1:
                remarks.append(Remark(f"trainer.{kept}", "is a list; a flat file has room for one"))
                continue
            one = one[0]
        tree = put(tree, paths[0], one)
        why = f"differs from trainer.{kept}; a flat file has room for one"
        remarks += [Remark(f"trainer.{path}", why) for path in others if found[path] not in (one, [one])]
    return {name: value for name, value in tree.items() if value or name not in DATA}
