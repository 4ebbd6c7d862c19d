"""The move of 2.3: every field of a flat params file, and its place under `trainer:`.

One row a field, for both directions. Where several rows name one field, the first that can say its value counts; what
no row names is dropped with a remark. How callbacks, the optimizer, schedulers and dataloaders are really written
under `trainer:` is `mmconvert.params.trainer`'s matter.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmconvert.params import trainer
from mmconvert.params.carry import FLAT, NESTED, Move, Place, Rest, Table, place
from mmconvert.params.values import ARGUMENTS, AS_IT_IS, SWITCH, SWITCHED_ON, Spelling
from mmconvert.remark import Remark

MICRO_BATCH = "csx.performance.micro_batch_size"


def move(flat: str, nested: str) -> Move:
    """A field, by its paths in a flat file and under `trainer`."""
    return Move(place(flat), place(nested))


def rest(flat: str, nested: str) -> Rest:
    """All fields of a section that have no row of their own."""
    return Rest(flat, nested)


def callback(name: str, argument: str | None, flat: str, spelling: Spelling = AS_IT_IS) -> Move:
    """A field that is an argument of a callback, or the callback as a whole."""
    return _entry("init.callbacks", name, argument, flat, spelling)


def logger(name: str, argument: str, flat: str) -> Move:
    """A field that is an argument of a logger."""
    return _entry("init.loggers", name, argument, flat, AS_IT_IS)


def _entry(path: str, name: str, argument: str | None, flat: str, spelling: Spelling) -> Move:
    nested = Place(path, name) if argument is None else Place(f"{path}.{name}", argument)
    return Move(place(flat), nested, spelling)


# fmt: off
ROWS = (
    # the run
    move("runconfig.model_dir",                         "init.model_dir"),
    move("runconfig.seed",                              "init.seed"),

    # where it runs
    move("runconfig.target_device",                     "init.backend.backend_type"),
    move("runconfig.compile_dir",                       "init.backend.compile_dir"),
    move("runconfig.compile_only",                      "init.backend.compile_only"),
    move("runconfig.validate_only",                     "init.backend.validate_only"),
    move("runconfig.enable_distributed",                "init.backend.enable_distributed"),
    move("runconfig.main_process_id",                   "init.backend.main_process_id"),
    move("runconfig.dist_backend",                      "init.backend.dist_backend"),
    move("runconfig.init_method",                       "init.backend.init_method"),
    move("runconfig.sync_batchnorm",                    "init.backend.sync_batchnorm"),
    move("runconfig.num_csx",                           "init.backend.cluster_config.num_csx"),
    move("runconfig.num_wgt_servers",                   "init.backend.cluster_config.max_wgt_servers"),
    move("runconfig.num_act_servers",                   "init.backend.cluster_config.max_act_per_csx"),
    move("runconfig.num_workers_per_csx",               "init.backend.cluster_config.num_workers_per_csx"),
    move("runconfig.mgmt_address",                      "init.backend.cluster_config.mgmt_address"),
    move("runconfig.mgmt_namespace",                    "init.backend.cluster_config.mgmt_namespace"),
    move("runconfig.credentials_path",                  "init.backend.cluster_config.credentials_path"),
    move("runconfig.mount_dirs",                        "init.backend.cluster_config.mount_dirs"),
    move("runconfig.python_paths",                      "init.backend.cluster_config.python_paths"),
    move("runconfig.job_labels",                        "init.backend.cluster_config.job_labels"),
    move("runconfig.job_priority",                      "init.backend.cluster_config.job_priority"),
    move("runconfig.job_time_sec",                      "init.backend.cluster_config.job_time_sec"),
    move("runconfig.disable_version_check",             "init.backend.cluster_config.disable_version_check"),

    # learning rate, precision
    move("optimizer.learning_rate",                     "init.schedulers"),
    move("model.mixed_precision",                       "init.precision.enabled"),
    move("model.fp16_type",                             "init.precision.fp16_type"),
    move("runconfig.precision_opt_level",               "init.precision.precision_opt_level"),
    move("optimizer.loss_scaling_factor",               "init.precision.loss_scaling_factor"),
    move("optimizer.initial_loss_scale",                "init.precision.initial_loss_scale"),
    move("optimizer.steps_per_increase",                "init.precision.steps_per_increase"),
    move("optimizer.min_loss_scale",                    "init.precision.min_loss_scale"),
    move("optimizer.max_loss_scale",                    "init.precision.max_loss_scale"),
    move("optimizer.max_gradient_norm",                 "init.precision.max_gradient_norm"),
    move("optimizer.max_gradient_value",                "init.precision.max_gradient_value"),
    move("optimizer.log_summaries",                     "init.precision.log_loss_scale"),

    # before the callback made of one of its fields: a list of several sparsities has no room for that field
    rest("sparsity",                                    "init.sparsity"),

    # loop, checkpoints, logging
    move("runconfig.num_steps",                         "init.loop.num_steps"),
    move("runconfig.max_steps",                         "init.loop.max_steps"),
    move("runconfig.num_epochs",                        "init.loop.num_epochs"),
    move("runconfig.steps_per_epoch",                   "init.loop.steps_per_epoch"),
    move("runconfig.eval_frequency",                    "init.loop.eval_frequency"),
    move("runconfig.eval_steps",                        "init.loop.eval_steps"),
    move("optimizer.grad_accum_steps",                  "init.loop.grad_accum_steps"),
    move("runconfig.checkpoint_steps",                  "init.checkpoint.steps"),
    move("runconfig.disable_strict_checkpoint_loading", "init.checkpoint.disable_strict_checkpoint_loading"),
    move("runconfig.autoload_last_checkpoint",          "init.checkpoint.autoload_last_checkpoint"),
    move("runconfig.save_initial_checkpoint",           "init.checkpoint.save_initial_checkpoint"),
    move("runconfig.log_steps",                         "init.logging.log_steps"),
    move("runconfig.logging",                           "init.logging.log_level"),
    move("runconfig.wsc_log_level",                     "init.logging.wsc_log_level"),
    move("runconfig.enable_act_frequency",              "init.logging.enable_act_frequency"),

    # callbacks; the dots in the names of flags are part of the names
    callback("GlobalFlags",          "csx.performance.transfer_processes", "runconfig.transfer_processes"),
    callback("GlobalFlags",          "csx.debug.ini",                      "runconfig.ini"),
    callback("GlobalFlags",          "csx.debug.debug_args",               "runconfig.debug_args"),
    callback("GlobalFlags",          "csx.debug.retrace_every_iteration",  "runconfig.retrace_every_iteration"),
    callback("GlobalFlags",          "csx.debug.lazy_initialization",      "runconfig.lazy_initialization"),
    callback("GlobalFlags",          "csx.debug.log_initialization",       "runconfig.log_initialization"),
    callback("GlobalFlags",          "csx.debug.drop_data",                "runconfig.drop_data"),
    callback("GlobalFlags",          "csx.debug.fabric_type_blacklist",    "runconfig.fabric_type_blacklist"),
    callback("GlobalFlags",          "csx.debug.compile_crd_memory_gi",    "runconfig.compile_crd_memory_gi"),
    callback("GlobalFlags",          "csx.debug.execute_crd_memory_gi",    "runconfig.execute_crd_memory_gi"),
    callback("GlobalFlags",          "csx.debug.wrk_memory_gi",            "runconfig.wrk_memory_gi"),
    callback("GlobalFlags",          "csx.debug.act_memory_gi",            "runconfig.act_memory_gi"),
    callback("GlobalFlags",          "csx.debug.cmd_memory_gi",            "runconfig.cmd_memory_gi"),
    callback("GlobalFlags",          "csx.debug.wgt_memory_gi",            "runconfig.wgt_memory_gi"),
    callback("GlobalFlags",          "csx.debug.chf_memory_gi",            "runconfig.chf_memory_gi"),
    callback("ScopedTrainFlags",     MICRO_BATCH,                          "train_input.micro_batch_size"),
    callback("ScopedValidateFlags",  MICRO_BATCH,                          "eval_input.micro_batch_size"),
    callback("DebugArgsPath",        "debug_args_path",                    "runconfig.debug_args_path"),
    callback("Lora",                 "lora_params",                        "model.lora_params"),
    callback("LogInputSummaries",    None,                                 "runconfig.log_input_summaries", SWITCH),
    callback("CheckLoss",            None,                                 "runconfig.check_loss_values", SWITCH),
    callback("ComputeNorm",          None,                                 "optimizer.log_summaries", SWITCHED_ON),
    callback("LoadCheckpointStates", "load_checkpoint_states",             "runconfig.load_checkpoint_states"),
    callback("KeepNCheckpoints",     "n",                                  "runconfig.max_checkpoints"),
    callback("LogSparsity",          None,                                 "sparsity.add_summaries", SWITCH),
    callback("WeightCompression",    "compressions",                       "model.compression"),
    callback("SelectiveGrad",        "selective_grads",                    "model.selective_grad"),
    callback("HFCacheDir",           "cache_dir",                          "runconfig.hf_cache_dir"),
    callback("DumpActivations",      None,                                 "runconfig.dump_activations", ARGUMENTS),
    callback("OpProfiler",           None,                                 "runconfig.op_profiler_config"),

    # loggers
    logger("TensorBoardLogger", "summary_dir",       "runconfig.summary_dir"),
    logger("TensorBoardLogger", "legacy_event_dirs", "runconfig.legacy_event_dirs"),
    logger("WandbLogger",       "project",           "wandb.project"),
    logger("WandbLogger",       "group",             "wandb.group"),
    logger("WandbLogger",       "run_id",            "wandb.run_id"),
    logger("WandbLogger",       "run_name",          "wandb.run_name"),
    logger("WandbLogger",       "job_type",          "wandb.job_type"),
    logger("WandbLogger",       "tags",              "wandb.tags"),
    logger("WandbLogger",       "resume",            "wandb.resume"),
    logger("WandbLogger",       "entity",            "wandb.entity"),

    # sections; `fit`, `validate` and `validate_all` repeat eval_input and the path
    rest("model",                     "init.model"),
    rest("optimizer",                 "init.optimizer"),
    rest("train_input",               "fit.train_dataloader"),
    rest("eval_input",                "validate.val_dataloader"),
    move("runconfig.checkpoint_path", "fit.ckpt_path"),
)
# fmt: on

TABLE = Table(
    ROWS,
    why={FLAT: "has no place under `trainer`", NESTED: "has no place in a flat params file"},
    reasons={"runconfig.mode": "is said on the command line"},
    loose=frozenset({"sparsity", "init.sparsity"}),
    lists=trainer.LISTS,
)

Params = Mapping[str, Any]
Result = tuple[dict[str, Any], tuple[Remark, ...]]


def check_flat(params: Params) -> None:
    """Raise ValueError, naming the path, for a flat document with a section that is no mapping."""
    TABLE.check(params, FLAT)


def to_trainer(params: Params) -> Result:
    """A flat document, checked, under `trainer:`, and what has no place there.

    Raises ValueError, naming the path, for a learning rate that is not shaped as expected.
    """
    plain, left = TABLE.carry(params, FLAT)
    tree, lost = trainer.put_together(plain)
    return {"trainer": tree}, (*left, *lost)


def to_flat(params: Params) -> Result:
    """A document under `trainer:` in flat sections, and what has no place in them.

    Raises ValueError, naming the path, for what is not shaped as expected.
    """
    plain, lost = trainer.taken_apart(params["trainer"])
    TABLE.check(plain, NESTED)
    flat, left = TABLE.carry(plain, NESTED)
    beside = tuple(Remark(key, TABLE.why[NESTED]) for key in params if key != "trainer")
    return flat, (*lost, *left, *beside)
