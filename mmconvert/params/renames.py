"""What the releases up to 2.3 called otherwise in flat params files, release by release.

Since 2.3 nothing was renamed. Where the older releases read the newer spelling too, a row only ever goes up.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmconvert.params.renaming import Condition, Config, Result, Row, apply, each, gone, join, put_in, rename, respell
from mmconvert.params.schedulers import full_name
from mmconvert.params.values import Spelling, choices
from mmconvert.paths import ABSENT, get, put, without
from mmconvert.releases import TRAINER, Release
from mmconvert.remark import Remark

RATE = "optimizer.learning_rate"
INPUTS = ("train_input", "eval_input")


def scheduler(*names: str) -> Condition:
    """True for an entry of a learning rate that is one of these."""
    return lambda entry: full_name(entry.get("scheduler")) in names


def scheduler_other_than(*names: str) -> Condition:
    return lambda entry: full_name(entry.get("scheduler")) not in names


# --- micro batches --------------------------------------------------------------------------------------------------


ACCUMULATION = "runconfig.use_cs_grad_accum"


def _accumulation_up(config: Config) -> Result:
    """One switch for the whole run becomes a size in either section: `auto`, or null for none."""
    switch = get(config, ACCUMULATION)
    if switch is ABSENT:
        return config, ()
    changed = without(config, ACCUMULATION)
    inputs = [name for name in INPUTS if isinstance(get(config, name), Mapping)]
    if not inputs:
        return changed, (Remark(ACCUMULATION, "is said in train_input and eval_input since 2.2; neither is there"),)
    remarks = []
    for path in [f"{name}.micro_batch_size" for name in inputs]:
        held = get(config, path)
        if not switch:
            changed = put(changed, path, None)
            if held not in (ABSENT, None):
                remarks.append(Remark(path, f"{held!r} had no effect: {ACCUMULATION} is off"))
        elif held in (ABSENT, None):
            changed = put(changed, path, "auto")
    return changed, tuple(remarks)


def _accumulation_down(config: Config) -> Result:
    """The switch is on if either section has a size; a size that is a number stays, for 2.1 reads it too."""
    sizes = {f"{name}.micro_batch_size": get(config, f"{name}.micro_batch_size") for name in INPUTS}
    sizes = {path: size for path, size in sizes.items() if size is not ABSENT}
    if not sizes:
        return config, ()
    switch = any(size is not None for size in sizes.values())
    changed: Any = config
    for path in [path for path, size in sizes.items() if size in (None, "auto")]:
        changed = without(changed, path)
    off = [path for path, size in sizes.items() if size is None] if switch else []
    remarks = tuple(Remark(path, f"null cannot be said of one section: {ACCUMULATION} is on for both") for path in off)
    return put_in(changed, ACCUMULATION, switch), remarks


# --- images ---------------------------------------------------------------------------------------------------------


CHANNELS = 3


def _image_size_up(section: Config) -> Result:
    """Height and width, or one number for a square, become channels, height and width."""
    size = section.get("image_size")
    size = [size, size] if isinstance(size, int) else size
    if not (isinstance(size, list) and len(size) == 2 and "image_data_size" not in section):
        return section, ()
    return put(without(section, "image_size"), "image_data_size", [CHANNELS, *size]), ()


def _image_size_down(section: Config) -> Result:
    size = section.get("image_data_size")
    if not (isinstance(size, list) and len(size) == 3 and size[0] == CHANNELS and "image_size" not in section):
        return section, ()
    return put(without(section, "image_data_size"), "image_size", size[1:]), ()


def is_multimodal(section: Config) -> bool:
    return str(section.get("data_processor")).startswith(("Multimodal", "Llava"))


# --- the table ------------------------------------------------------------------------------------------------------


def _in_patterns(found: str, meant: str) -> Any:
    """A function that puts one wildcard in place of another in a pattern or a list of them."""

    def changed(patterns: Any) -> Any:
        if isinstance(patterns, list):
            return [changed(pattern) for pattern in patterns]
        return patterns.replace(found, meant) if isinstance(patterns, str) else patterns

    return changed


WILDCARDS = Spelling(_in_patterns(".*", "*"), _in_patterns("*", ".*"))
PRETRAINED = choices((True, ["model", "dataloader"]))
HALF = choices((True, "bfloat16"), (False, "float16"))

UNREAD = "is read by no release since 2.1"

# fmt: off
RENAMES: tuple[tuple[Release, tuple[Row, ...]], ...] = (
    (Release(2, 1), (
        gone("csconfig", "cerebras", why=UNREAD),
        gone("runconfig.experimental_api", "runconfig.multireplica", "runconfig.num_replicas", why=UNREAD),
        gone("runconfig.save_losses", "runconfig.service_dir", "runconfig.use_appliance_data", why=UNREAD),
        gone("runconfig.num_act_servers", "runconfig.num_wgt_servers", why=UNREAD),
        rename("runconfig.is_pretrained_checkpoint", "runconfig.load_checkpoint_states", PRETRAINED),
        rename("runconfig.keep_checkpoint_max",      "runconfig.max_checkpoints"),
        rename("model.precision_opt_level",          "runconfig.precision_opt_level"),
        rename("model.use_bfloat16",                 "model.fp16_type", HALF),
        respell("optimizer.weight_decay_rate",       "optimizer.weight_decay"),
        join("optimizer.beta1",         "optimizer.beta2",         into="optimizer.betas"),
        join("optimizer.eps1",          "optimizer.eps2",          into="optimizer.eps"),
        join("optimizer.eta1",          "optimizer.eta2",          into="optimizer.etas"),
        join("optimizer.step_size_min", "optimizer.step_size_max", into="optimizer.step_sizes"),
        each(RATE,
            respell("steps",       "total_iters"),
            respell("decay_steps", "total_iters"),
            respell("t_max",       "T_max"),
            respell("t_0",         "T_0"),
            respell("t_mult",      "T_mult"),
        ),
        each(RATE,
            respell("learning_rate", "initial_learning_rate"),
            respell("base_lr",       "initial_learning_rate"),
            when=scheduler_other_than("ConstantLR", "CyclicLR"),
        ),
        each(RATE,
            respell("learning_rate", "base_lr"),
            when=scheduler("CyclicLR"),
        ),
        each(RATE,
            respell("values",     "learning_rates"),
            respell("boundaries", "milestones"),
            when=scheduler("PiecewiseConstantLR"),
        ),
    )),
    (Release(2, 2), (
        Row(_accumulation_up, _accumulation_down),
        gone("runconfig.autogen_policy", why="is read by no release since 2.2"),
        each("sparsity",
            rename("type",                "algorithm"),
            rename("schedule",            "update"),
            rename("param_name_patterns", "param_filter", WILDCARDS),
        ),
    )),
    (TRAINER, (
        each("train_input", Row(_image_size_up, _image_size_down), when=is_multimodal),
        each("eval_input",  Row(_image_size_up, _image_size_down), when=is_multimodal),
    )),
)
# fmt: on


def between(params: Config, source: Release, target: Release) -> Result:
    """A flat document of release `source` in the spelling of `target`, and what was dropped on the way."""
    newer = [row.up for release, rows in RENAMES if source < release <= target for row in rows]
    older = [row.down for release, rows in reversed(RENAMES) if target < release <= source for row in reversed(rows)]
    return apply(newer + older, params)


def respelled(params: Config) -> Iterator[tuple[Release, str]]:
    """The releases since which some field of a flat document is spelled otherwise, each with one such section."""
    for release, rows in RENAMES:
        for row in rows:
            changed, _ = row.up(params)
            sections = [name for name in params if get(changed, name) != params[name]]
            if sections:
                yield release, f"what {sections[0]} holds"
                break
