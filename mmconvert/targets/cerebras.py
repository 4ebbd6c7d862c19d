"""A CS checkpoint: its weights, its params file, and in `assets/` what the way back needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmconvert import params, spellings
from mmconvert.containers.layout import FileLayout
from mmconvert.documents import dump_json, dump_yaml, parse_json, read_yaml
from mmconvert.errors import InputRefused, UsageError
from mmconvert.layouts.checkpoint import ASSETS
from mmconvert.options import CONTAINER
from mmconvert.releases import NEWEST, Release
from mmconvert.remark import Remark
from mmconvert.spec import Config
from mmconvert.targets.job import Job, Target, never_written
from mmconvert.targets.sidecars import Sidecars
from mmconvert.targets.weights import outputs, safetensors

# The release whose .mdl files are of the format that is written.
CONTAINER_SINCE = Release(2, 1)


def cerebras(job: Job, sidecars: Sidecars) -> Target:
    canonical, tensors = job.assembly.legs[-1].configs.target, job.assembly.tensors
    release = job.release or NEWEST
    document, dropped, kept = _params(job, canonical, release)
    documents, warnings = {"config.yaml": dump_yaml(document)}, [*sidecars.warnings]
    layouts: Sequence[FileLayout] = ()
    if not job.checkpoint.bare:
        layouts, index = _weights(job, document, str(canonical.get("name", job.hop.converter.model)), release)
        documents |= index
    if layouts and release < CONTAINER_SINCE and (job.options.container or CONTAINER) == "mdl":
        warnings.append(
            f"release {release} itself writes and reads an older .mdl; this one is of format 0.5, for 2.1 and later"
        )
    assets = {f"{ASSETS}/{name}": _without_strangers(job, data, name) for name, data in sidecars.files.items()}
    documents |= assets
    carried = sidecars.unchanged(assets)
    return Target(outputs(layouts, tensors), documents, carried, tuple(warnings), dropped=dropped, kept=kept)


def _weights(
    job: Job, document: Config, name: str, release: Release
) -> tuple[Sequence[FileLayout], Mapping[str, bytes]]:
    """The files of a CS checkpoint's tensors, and the index that leads to them where there is one."""
    if (job.options.container or CONTAINER) == "mdl":
        from mmconvert.containers import mdl_write

        metadata = {"version": f"{release}.0", "model_name": name, "params": document}
        outlines = [tensor.outline for tensor in job.assembly.tensors]
        return [mdl_write.lay_out("model.mdl", outlines, metadata)], {}
    layouts, index = safetensors(job.assembly.tensors, job.options)
    return layouts, {} if index is None else {"model.safetensors.index.json": index}


def _params(
    job: Job, canonical: Config, release: Release
) -> tuple[dict[str, Any], tuple[Remark, ...], tuple[str, ...]]:
    """The params file of the target: the user's, the source's own at the release that is written, or a new one.

    With it, what of it was dropped, and which fields of its model section stayed.
    """
    source, given, form = job.checkpoint, job.options.params, job.hop.target
    section = spellings.write(form.changes, canonical, release)
    if given is None and not source.params:
        return {"model": section}, (), ()
    document = source.params if given is None else read_yaml(given)
    try:
        # The user's own file says its release by its spelling alone.
        release_of = source.params_release if given is None else params.oldest(document, release)
        converted, dropped = params.convert(document, release_of or release, release)
        kept = {} if given is None else params.model_fields(converted, form.of_training)
        if kept:
            job.hop.converter.configs.space(job.hop.other).read({**canonical, **kept})
        return params.with_section(converted, {**section, **kept}), dropped, tuple(kept)
    except ValueError as error:
        if given is not None:
            raise UsageError(f"{given}: {error}") from error
        raise InputRefused(f"{source.config_from}: {error}") from error


def _without_strangers(job: Job, data: bytes, name: str) -> bytes:
    """A carried file byte for byte; a config without what must not travel (code to run, paths of the machine)."""
    part, _, base = name.rpartition("/")
    if base not in job.configs:
        return data
    config = parse_json(data, name)
    prefix = f"{part}." if part else ""
    strangers = never_written(job.hop.converter.configs) & {prefix + key for key in config}
    kept = {key: value for key, value in config.items() if prefix + key not in strangers}
    return dump_json(kept) if strangers else data
