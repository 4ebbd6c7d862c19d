"""Every kind of file that comes from strangers: how an intact one is made, how it is damaged, and what reads it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

from mmconvert import api
from mmconvert.errors import InputRefused, NoConversion, UsageError
from mmconvert.options import Options
from mmconvert.sources import TensorRef, blocks
from tests.trust import mutants_bases as bases
from tests.trust import mutants_damage as damage
from tests.trust.mutants_forks import Copied, Saying, opened_by
from tests.trust.mutations import mutate_bytes, mutate_text

Damage = Callable[[bytes, Random], bytes]

REFUSED, READ, CONVERTED = "refused", "read", "converted"
# What is read of a tensor that claims to be larger, at its beginning and at its end.
MOST = 8 << 20
BLOCK = 1 << 20
# Every so manieth mutant is converted, and of those that a process opens, opened by one that was really started.
CONVERT_EVERY = 4
START_EVERY = 20
# Mutants of what is much like another kind, in every run of the tests.
FEWER = 20


@dataclass(frozen=True)
class Kind:
    """`make` writes an intact checkpoint; `damage` gives, by the file's name in it, what a mutant of it is made by.

    `to` is the format that it is converted to. `use` has our code read a folder with the mutant of a seed in it: the
    name of the file, where to convert to, the seed. It says what came of it; what it raises is a finding. `usual` are
    the mutants of every run of the tests.
    """

    make: Callable[[Path], None]
    damage: Mapping[str, Damage]
    to: str = "cs"
    use: Callable[[Kind, Path, str, Path, int], str] = field(default=lambda *all_of_it: use(*all_of_it))
    usual: int = 200


def use(kind: Kind, folder: Path, name: str, out: Path, seed: int, params: Path | None = None) -> str:
    """Recognise a checkpoint, read all its tensors, plan a conversion, and carry it out for some.

    What is wrong with params that are named by an option is told as any fault in options is.
    """
    if seed % CONVERT_EVERY == 1 and kind.use is not use_mdl:  # one that hangs would do so for each
        _ask_of_it(folder)
    # A config of another model may be sound, and yet none that leads to the format.
    refusals = (InputRefused, NoConversion, *([UsageError] if params else []))
    try:
        for tensor in api.recognise(folder).tensors.values():
            _look_through(tensor)
        planned = api.plan(folder, out, kind.to, options=Options(params=params))
    except refusals as error:
        _check_message(error)
        return REFUSED
    if seed % CONVERT_EVERY:
        return READ
    try:
        api.run(planned, fsync=False)
    except InputRefused as error:
        _check_message(error)
        left = list(out.parent.glob(f"*{out.name}*"))
        assert not left, f"a conversion that was refused left {left}"
        return REFUSED
    problems = api.verify(out).problems
    assert not problems, f"what was written is not what the manifest says: {problems}"
    return CONVERTED


def _ask_of_it(folder: Path) -> None:
    """Have all that reads a checkpoint, and writes none, look at it."""
    for ask in (api.inspect, api.doctor, lambda it: api.verify(it, it), lambda it: api.diff(it, it)):
        try:
            ask(folder)
        except (InputRefused, NoConversion, UsageError) as error:
            _check_message(error)


def _check_message(error: Exception) -> None:
    lines = str(error).splitlines()
    assert 1 <= len(lines) <= 2, f"an error of {len(lines)} lines: {str(error)[:500]}"
    assert len(str(error)) < 1500, f"an error of {len(str(error))} characters: {str(error)[:500]}"
    assert all(line.isprintable() for line in lines), f"an error that moves the cursor: {error!r:.500}"


def _look_through(tensor: TensorRef) -> None:
    spans = [(0, tensor.nbytes)] if tensor.nbytes <= 2 * MOST else [(0, MOST), (tensor.nbytes - MOST, MOST)]
    buffer = memoryview(bytearray(BLOCK))
    for begin, length in spans:
        for start, size in blocks(length, BLOCK):
            tensor.source.read_into(begin + start, [buffer[:size]])


def use_mdl(kind: Kind, folder: Path, name: str, out: Path, seed: int) -> str:
    with opened_by(Copied) if seed % START_EVERY else nullcontext():
        return use(kind, folder, name, out, seed)


def use_answer(kind: Kind, folder: Path, name: str, out: Path, seed: int) -> str:
    with opened_by(Saying((folder / name).read_bytes())):
        return use(kind, folder, name, out, seed)


def use_params(kind: Kind, folder: Path, name: str, out: Path, seed: int) -> str:
    return use(kind, folder, name, out, seed, folder / name)


def use_manifest(kind: Kind, folder: Path, name: str, out: Path, seed: int) -> str:
    """Compare a folder with its manifest; and recognise it, since a manifest tells of the model and the release."""
    try:
        found = api.verify(folder)
    except UsageError as error:
        # A manifest of a later version, or one without digests, is none that is damaged.
        _check_message(error)
        return REFUSED
    for problem in found.problems:
        _check_message(ValueError(problem))
    came = use(kind, folder, name, out, seed)
    return REFUSED if found.problems else came


KINDS: dict[str, Kind] = {
    "safetensors": Kind(bases.llama, {"model.safetensors": damage.safetensors}),
    "bin": Kind(bases.pickled, {"pytorch_model.bin": damage.torch_zip}),
    "mdl of ours": Kind(bases.own_mdl, {"model.mdl": damage.mdl}, "hf", use_mdl),
    "mdl of the reference": Kind(bases.reference_mdl, {"model.mdl": damage.mdl}, "hf", use_mdl),
    "mdl of the reference's trainer": Kind(bases.trainer_mdl, {"model.mdl": damage.mdl}, "hf", use_mdl, usual=FEWER),
    "mdl before 0.5": Kind(bases.legacy_mdl, {"model.mdl": damage.mdl}, "hf", use_mdl, usual=FEWER),
    "answer about an mdl": Kind(bases.answered, {"answer.json": mutate_text}, "hf", use_answer, usual=FEWER),
    "safetensors index": Kind(bases.sharded, {"model.safetensors.index.json": mutate_text}),
    "bin index": Kind(bases.pickled_shards, {"pytorch_model.bin.index.json": mutate_text}),
    "config.json": Kind(
        bases.llava, {"image_model/config.json": mutate_text, "text_model_llava/config.json": mutate_text}
    ),
    "config.json of llava-hf": Kind(bases.llava_hf, {"config.json": mutate_text}, "llava", usual=FEWER),
    "config.yaml": Kind(bases.llava_cs, {"config.yaml": mutate_text}, "llava"),
    "config.json in assets": Kind(
        bases.llava_cs,
        {"assets/image_model/config.json": mutate_text, "assets/text_model/config.json": mutate_text},
        "llava",
        usual=FEWER,
    ),
    "params file": Kind(bases.with_params, {"params.yaml": mutate_text}, "cs", use_params, usual=FEWER),
    "manifest": Kind(bases.llava_cs, {"mmconvert.json": damage.signed_manifest}, "llava", use_manifest, usual=FEWER),
    "tokenizer.model": Kind(bases.llava, {"text_model_llava/tokenizer.model": mutate_bytes}, "llava-hf", usual=FEWER),
    "tokenizer.json": Kind(
        bases.llava_of_llava_hf, {"text_model_llava/tokenizer.json": mutate_text}, "llava-hf", usual=FEWER
    ),
    "tokenizer.json of llava-hf": Kind(bases.llava_hf, {"tokenizer.json": mutate_text}, "llava", usual=FEWER),
    "small files of LLaVA": Kind(
        bases.llava,
        {
            "image_model/preprocessor_config.json": mutate_text,
            "text_model_llava/generation_config.json": mutate_text,
            "text_model_llava/special_tokens_map.json": mutate_text,
            "text_model_llava/tokenizer_config.json": mutate_text,
        },
        "llava-hf",
        usual=FEWER,
    ),
    "small files of llava-hf": Kind(
        bases.llava_hf,
        {
            "generation_config.json": mutate_text,
            "processor_config.json": mutate_text,
            "tokenizer_config.json": mutate_text,
        },
        "llava",
        usual=FEWER,
    ),
}
