"""The model card of an export: what it is, what it was made from and how, and how each program loads it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import prod

from mmconvert import __version__
from mmconvert.converter import Usage
from mmconvert.plans import OutputFile
from mmconvert.targets.job import Job

NAME = "README.md"
# What the folder is called in commands, wherever it stands.
HERE = "DIR"


def card(job: Job, outputs: Sequence[OutputFile], usages: Iterable[Usage]) -> bytes:
    """The card; its text depends on the conversion alone, and not on names or places of this machine."""
    lines = [
        "---",
        "library_name: transformers",
        "tags: [mmconvert]",
        "---",
        "",
        f"# {_title(job)}",
        "",
        *_made(job, outputs),
        "",
        f"`{HERE}` stands for this folder.",
    ]
    for usage in usages:
        lines += ["", f"## {usage.title}", "", *usage.text.strip().splitlines()]
    return ("\n".join(lines) + "\n").encode()


def _title(job: Job) -> str:
    form, only = job.hop.target, job.options.only
    what = f"{job.hop.converter.model}, in the layout {form.name}"
    return what if only is None else f"The {only} of a {what}"


def _made(job: Job, outputs: Sequence[OutputFile]) -> Iterator[str]:
    tensors = [tensor for output in outputs for tensor in output.tensors]
    parameters = sum(prod(tensor.shape) for tensor in tensors)
    types = Counter(tensor.dtype.name for tensor in tensors)
    said = ", ".join(f"{count} of {name}" for name, count in sorted(types.items()))
    yield f"- **What:** {parameters:,} parameters in {len(tensors)} tensors ({said})."
    yield f"- **From:** a checkpoint of {job.checkpoint.node}."
    yield f"- **By:** mmconvert {__version__}, {'; '.join(str(leg.hop) for leg in job.assembly.legs)}."
    for name, value in job.options.recorded().items():
        yield f"- **Asked for:** `{name}` {value}."
    yield (
        f"- **Kept, left out and made:** `mmconvert.json` lists every tensor, where it comes from and its digest; "
        f"`mmconvert verify {HERE}` compares."
    )
