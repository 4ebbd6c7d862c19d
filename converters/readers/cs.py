"""Cerebras' modelzoo as a reader: a `.mdl` or safetensors checkpoint and its params file, loaded strictly by 2.10.

Its config classes refuse fields that its own converters have written, and a strict load refuses every key that is
missing or too many.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from mmconvert.diagnosis import Reader, Trap, error, warning
from mmconvert.errors import UsageError
from mmconvert.paths import get
from mmconvert.releases import Release

from .traps_parts import by
from .view_cs import PREFIX, Cerebras, holds_cs

AGAIN = "`mmconvert convert --src {path} --to cs --out NEW`"
NAMED_SINCE = Release(2, 4)
# Patterns that repeat nothing, so that no search for them runs away.
PLAIN = re.compile(r"[\w^$.\\]+")


# --- which files ------------------------------------------------------------------------------------------------------


def _other_layout(cs: Cerebras) -> Iterator[str]:
    if not holds_cs(cs.patient):
        yield f"{cs.patient.path}: holds no .mdl, and no weights with a params file beside them"


def _several_mdl(cs: Cerebras) -> Iterator[str]:
    if len(cs.mdl_files) > 1 and "model.mdl" not in cs.mdl_files:
        yield f"{cs.patient.path}: holds {len(cs.mdl_files)} .mdl files, such as {cs.mdl_files[-1]}"


def _no_params(cs: Cerebras) -> Iterator[str]:
    if isinstance(cs.refusal, UsageError) and not cs.params_files:
        yield f"{cs.patient.path}: holds no params file"


def _several_params(cs: Cerebras) -> Iterator[str]:
    if isinstance(cs.refusal, UsageError) and len(cs.params_files) > 1:
        yield f"{cs.patient.path}: holds {', '.join(cs.params_files)}, and none of them is config.yaml"


def _unknown(cs: Cerebras) -> Iterator[str]:
    if cs.refusal is not None and cs.weights_can_be_read:
        yield str(cs.refusal)


def _unreadable(cs: Cerebras) -> Iterator[str]:
    if cs.refusal is not None:
        yield str(cs.refusal)


# --- the model section ------------------------------------------------------------------------------------------------


def _unread_fields(cs: Cerebras) -> Iterator[str]:
    """Fields that no release's classes read, though converters have written them."""
    for part, schema in cs.schemas.items():
        section = get(cs.section, part)
        for path in schema.without_deprecated(section)[1] if isinstance(section, dict) else ():
            # A schema of the whole describes a part that has one of its own as well.
            if part or not any(path.startswith(f"{other}.") for other in cs.schemas if other):
                yield f"{cs.where}: {f'{part}.{path}' if part else path} is set"


def _invalid(cs: Cerebras) -> Iterator[str]:
    try:
        cs.read()
    except ValueError as wrong:
        yield f"{cs.where}: {wrong}"


def _nameless(cs: Cerebras) -> bool:
    return cs.checkpoint is not None and "name" not in cs.written


def _is_named_release(cs: Cerebras) -> bool:
    release = cs.checkpoint.node.release if cs.checkpoint else None
    return release is not None and release >= NAMED_SINCE


def _no_name(cs: Cerebras) -> Iterator[str]:
    if _nameless(cs) and _is_named_release(cs):
        yield f"{cs.where}: the model section has no name (it is {cs.section.get('name')})"


def _no_name_yet(cs: Cerebras) -> Iterator[str]:
    if _nameless(cs) and not _is_named_release(cs):
        yield f"{cs.where}: the model section has no name (it is {cs.section.get('name')})"


def _trainable(cs: Cerebras, keys: Sequence[str]) -> list[str]:
    said = cs.section.get("freeze")
    patterns = [each for each in said if PLAIN.fullmatch(str(each))] if isinstance(said, list) else []
    try:
        frozen = [re.compile(str(each)) for each in patterns]
    except re.error:
        return list(keys)
    return [key for key in keys if not any(pattern.search(key) for pattern in frozen)]


def _nothing_trains(cs: Cerebras) -> Iterator[str]:
    keys = [each.b for each in cs.demand.pairs]
    if keys and not _trainable(cs, keys):
        yield f"{cs.where}: freeze is {cs.section['freeze']}, which matches every tensor"


def _projector_frozen(cs: Cerebras) -> Iterator[str]:
    keys = [each.b for each in cs.demand.pairs if each.part == "projector"]
    if keys and not _trainable(cs, keys) and not any(_nothing_trains(cs)):
        yield f"{cs.where}: freeze is {cs.section['freeze']}, which matches {keys[0]}"


# --- tensors ----------------------------------------------------------------------------------------------------------


def _some(keys: Sequence[str]) -> str:
    return keys[0] + (f" and {len(keys) - 1} more" if len(keys) > 1 else "")


def _prefixed(cs: Cerebras) -> Iterator[str]:
    found = [key for key in cs.checkpoint.tensors if key.startswith(PREFIX)] if cs.checkpoint else []
    if found:
        yield f"{cs.patient.path}: {_some(found)} begin with {PREFIX}"


def _second_copy_missing(cs: Cerebras) -> Iterator[str]:
    for key, of in cs.copies.items():
        if of in cs.tensors and key not in cs.tensors:
            yield f"{cs.patient.path}: {key} is missing, a second copy of {of}"


def _missing(cs: Cerebras) -> Iterator[str]:
    # Where the second name alone is there, it is the first that is missing.
    lacking = [each.b for each in cs.demand.pairs if each.b not in cs.tensors]
    if lacking:
        yield f"{cs.patient.path}: {_some(lacking)}: demanded by {cs.where} and missing from the weights"


def _misshapen(cs: Cerebras) -> Iterator[str]:
    demand = {each.b: each.shape for each in cs.demand.pairs}
    demand |= {key: demand[of] for key, of in cs.copies.items() if of in demand}
    wrong = [key for key, shape in demand.items() if key in cs.tensors and cs.tensors[key].shape != shape]
    if wrong:
        yield f"{_some(wrong)}: {by(cs.tensors[wrong[0]].shape)} in the weights, {by(demand[wrong[0]])} by {cs.where}"


def _too_many(cs: Cerebras) -> Iterator[str]:
    known = {each.b for each in cs.demand.pairs} | cs.copies.keys()
    strangers = [key for key in cs.tensors if key not in known]
    if known and strangers:
        yield f"{cs.patient.path}: {_some(strangers)}: no part of the model that {cs.where} describes"


# --- the table --------------------------------------------------------------------------------------------------------

# fmt: off
TRAPS: tuple[Trap[Cerebras], ...] = (
    error("no-cs-checkpoint", _other_layout,
          why="modelzoo has nothing to load",
          mend=AGAIN,
          decisive=True),
    error("several-checkpoints", _several_mdl,
          why="which of them is meant is open",
          mend="put the one that is meant into a folder of its own, or rename it to model.mdl",
          decisive=True),
    error("params-missing", _no_params,
          why="modelzoo builds the model from it",
          mend="put the params file of the run beside the checkpoint, as config.yaml",
          decisive=True),
    error("params-ambiguous", _several_params,
          why="which of them describes the checkpoint is open",
          mend="rename the params file of the run to config.yaml",
          decisive=True),
    warning("unknown-model", _unknown,
          why="its traps are not known here; the weights can be read",
          mend="correct the params file, or load it with modelzoo to see",
          decisive=True),
    error("unreadable", _unreadable,
          why="modelzoo does not load it either",
          mend="copy that file again from where it was saved, or take an earlier checkpoint of the run",
          decisive=True),
    error("fields-refused", _unread_fields,
          why="modelzoo's own converters have written it, and its config classes refuse it",
          mend="remove it from the params file"),
    error("config-invalid", _invalid,
          why="modelzoo's config classes refuse that",
          mend="correct the field in the params file, or remove it"),
    error("name-missing", _no_name,
          why=f"modelzoo needs it from {NAMED_SINCE} on",
          mend="set that name in the model section of the params file"),
    warning("name-missing-later", _no_name_yet,
          why=f"releases before {NAMED_SINCE} need none, later ones do",
          mend=AGAIN),
    error("nothing-trains", _nothing_trains,
          why="modelzoo's trainer would run and change nothing",
          mend="freeze '^image_model.image_model_list' in place of '^image_model', which freezes the projector too"),
    warning("projector-frozen", _projector_frozen,
          why="the projector stays as it is in training, and with the text model frozen too nothing trains at all",
          mend="freeze '^image_model.image_model_list' in place of '^image_model', if the projector is to train"),
    warning("model-prefix", _prefixed,
          why="its trainer reads them, but its converters and a strict load into the model do not",
          mend=AGAIN),
    error("second-copy-missing", _second_copy_missing,
          why="a strict load demands both names",
          mend=f"{AGAIN} writes both"),
    error("tensors-missing", _missing,
          why="a strict load fails",
          mend="copy the weights again from where they were saved, or correct the sizes in the params file"),
    error("tensor-shapes", _misshapen,
          why="modelzoo fails there",
          mend="correct the sizes in the params file, or copy the weights that belong to it"),
    error("tensors-unknown", _too_many,
          why="a strict load fails",
          mend="correct the sizes in the params file, or copy the weights that belong to it"),
)
# fmt: on

READERS = (Reader("cs", "Cerebras modelzoo (2.10)", holds_cs, Cerebras, TRAPS),)
