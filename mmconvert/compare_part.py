"""Is B a part of A, converted? For what `--only` wrote, which is no whole model and not known as one of A's."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from mmconvert import manifest
from mmconvert.compare import compare_one
from mmconvert.containers import open_file
from mmconvert.containers.shards import inside
from mmconvert.documents import parse_json, read_json
from mmconvert.errors import MMConvertError, UsageError
from mmconvert.findings import Findings
from mmconvert.layouts import NO_HINTS, Hints
from mmconvert.options import Options
from mmconvert.paths import ABSENT, get
from mmconvert.planner import make_plan
from mmconvert.plans import Plan
from mmconvert.progress import Progress, Silent
from mmconvert.rules import ANYTHING
from mmconvert.sources import TensorRef

CONFIG = "config.json"
ENDINGS = (".bin", ".safetensors")


def part_in(folder: Path) -> tuple[str, Options] | None:
    """The format of which a folder holds a part by its manifest, and what it was converted with; None for others."""
    try:
        document = read_json(inside(folder, manifest.NAME), manifest.LIMITS)
        form, options = document["target"]["format"], Options.from_record(document["options"])
    except (MMConvertError, KeyError, TypeError, ValueError, AttributeError):
        return None
    return (form, options) if options.only is not None and isinstance(form, str) else None


def compare_part(
    a: Path, b: Path, form: str, options: Options, hints: Hints = NO_HINTS, progress: Progress | None = None
) -> Findings:
    """Compare every tensor of `b`, a part in format `form`, with what becomes of `a`'s, and its config.

    Raises what a conversion of `a` does, and UsageError where `b` holds no weights.
    """
    files = [file for file in sorted(b.iterdir()) if file.suffix in ENDINGS]
    if not files:
        raise UsageError(f"{b}: holds no weights to compare")
    plan = make_plan(a, None, form, options=options, hints=hints)
    found = {key: ref for file in files for key, ref in open_file(file)[0].items()}
    result = Findings(notes=[*plan.warnings])
    result.problems += _configs(plan, b, options.only or "")
    _tensors(plan, found, result, progress or Silent())
    return result


def _configs(plan: Plan, b: Path, only: str) -> Iterator[str]:
    """Where the part's config says other things of what it is; not what merely travels, such as who saved it."""
    hop = plan.hops[-1]
    prefix = f"{hop.target.alone[only].folder}."
    rules = [rule for rule in hop.converter.configs.rules if ANYTHING not in rule.also]
    fields = sorted(path.removeprefix(prefix) for rule in rules for path in rule.a if path.startswith(prefix))
    expected, actual = parse_json(plan.documents[CONFIG], CONFIG), read_json(inside(b, CONFIG))
    for path in fields:
        wanted, value = get(expected, path), get(actual, path)
        if wanted != value and not (wanted in (None, ABSENT) and value in (None, ABSENT)):
            yield f"config: {path} is {value!r}, expected {wanted!r}"


def _tensors(plan: Plan, found: Mapping[str, TensorRef], result: Findings, progress: Progress) -> None:
    expected = {tensor.key: tensor for tensor in plan.tensors}
    result.problems += [f"{key}: only in B" for key in sorted(found.keys() - expected.keys())]
    progress.start(sum(tensor.nbytes for tensor in plan.tensors))
    broken: list[str] = []
    try:
        for key, tensor in expected.items():
            if key in found:
                broken += compare_one(tensor, found[key], result, progress)
            else:
                result.problems.append(f"{key}: missing in B")
    finally:
        progress.finish()
    if broken:
        result.notes.append(f"NaN or infinite values, equal on both sides: {', '.join(broken)}")
