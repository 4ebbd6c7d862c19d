"""A checkpoint of several folders, moved: the field of one's config that says where another lies is set right again.

Which field that is, and how the folders are known, the formats say (`Format.links`). What is beside a folder comes
before what its config says: where an export was copied, the former folder may well be there still.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmconvert import layouts, registry
from mmconvert.amendment import amend
from mmconvert.converter import Format
from mmconvert.errors import InputRefused, UsageError
from mmconvert.excerpt import excerpt
from mmconvert.json_field import set_field
from mmconvert.layouts.hugging_face import config_of, snapshot
from mmconvert.options import TOWER_PATH

CONFIG = "config.json"


@dataclass(frozen=True)
class Relocation:
    """What was done: the `field` of the file `config` said `before`, and says `after`.

    `tower` is the folder that it leads to; None for a name that was taken as it stands. `written` are the files that
    were: none where all was right, the manifest alone where a run that was interrupted before is finished.
    """

    config: Path
    field: str
    before: Any
    after: str
    tower: Path | None
    written: tuple[Path, ...]

    @property
    def changed(self) -> bool:
        return bool(self.before != self.after)


def relocate(path: Path, tower_path: str | None = None) -> Relocation:
    """Set right what the config of a checkpoint says of its tower's place; no other byte of it changes.

    `path` is the folder of the config, or the one that holds it and the tower. `tower_path` is the tower's folder; or
    what is to be said of the one that is found: `absolute` (the default) or `relative`; or a name that is no folder
    here, which is taken as it stands.

    Raises UsageError for a checkpoint whose config names no folder and for a path that does not exist, InputRefused
    where no tower is found or what is named is none, and else as `amend` does.
    """
    try:
        place = _place(path)
        tower, after = _aim(place, TOWER_PATH if tower_path is None else tower_path)
    except OSError as error:
        raise InputRefused(f"{error.filename or path}: cannot be read: {error.strerror}") from error
    if not after.isprintable():
        raise UsageError(f"{after!r}: a config cannot hold this path; choose another --tower-path")
    config, field = place.folder / CONFIG, place.link.field
    # What says it already may be spelled otherwise, and stays so.
    written = amend(config, lambda data: data if place.said == after else set_field(data, field, after))
    return Relocation(config, field, place.said, after, tower, written)


@dataclass(frozen=True)
class _Link:
    """A config field of the part `holder` that says where the part `tower` lies."""

    form: Format
    holder: str
    field: str
    tower: str

    def held_by(self, config: Mapping[str, Any]) -> bool:
        """Whether a config is of the part that has the field; one that has the field is, whatever else it says."""
        return self.field in config or self.form.parts[self.holder](config)

    def leads_to(self, folder: Path) -> bool:
        """Whether a folder is one that the field may name."""
        return os.path.isfile(folder / CONFIG) and self.form.parts[self.tower](config_of(folder))


@dataclass(frozen=True)
class _Place:
    """The folder whose config has a link, what that says, and folders beside it in which its tower may lie.

    A folder is `likely` the tower's by its name; any of `others` is if it is the only tower among them.
    """

    link: _Link
    folder: Path
    said: Any
    likely: tuple[Path, ...]
    others: tuple[Path, ...]


def _place(path: Path) -> _Place:
    """The folder whose config is meant: `path`, or the one folder in it whose config has a link."""
    # pathlib would raise for a name that is too long.
    if not os.path.isdir(path):
        what = "is a file; name the folder that holds it" if os.path.exists(path) else "no such file or folder"
        raise UsageError(f"{path}: {what}")
    path = _absolute(path)
    here = snapshot(path)
    alone = (here / CONFIG).is_file()
    folders = [here] if alone else [snapshot(each) for each in sorted(here.iterdir()) if each.is_dir()]
    configs = {each: config_of(each) for each in folders if (each / CONFIG).is_file()}
    for link in _links():
        holders = [each for each in configs if link.held_by(configs[each])]
        if len(holders) > 1:
            names = ", ".join(each.name for each in holders)
            raise InputRefused(f"{path}: holds {len(holders)} folders of {link.holder} ({names}); name one")
        for folder in holders:
            said = configs[folder].get(link.field)
            # A link is looked at in both places: where it stands and where it leads to.
            parents = dict.fromkeys((path.parent, here.resolve().parent)) if alone else [here]
            called = dict.fromkeys((Path(said).name if isinstance(said, str) else link.tower, link.tower))
            likely = tuple(parent / name for parent in parents for name in called)
            return _Place(link, folder, said, likely, () if alone else tuple(configs))
    found = layouts.recognise(path).node
    raise UsageError(
        f"{path}: the config of a {found.model} in format {found.format} names no folder: it can be moved as it is"
    )


def _links() -> Iterator[_Link]:
    for converter, side in registry.formats():
        form = converter.format(side)
        for path, tower in form.links.items():
            holder, _, field = path.partition(".")
            yield _Link(form, holder, field, tower)


def _aim(place: _Place, wanted: str) -> tuple[Path | None, str]:
    """The tower's folder, and what the config is to say of it; no folder for a name that is none here."""
    if wanted in ("absolute", "relative"):
        tower = _tower(place)
    elif wanted and os.path.isdir(wanted):
        tower = snapshot(Path(wanted))
        if not place.link.leads_to(tower):
            what = f"names no {place.link.tower}: its config.json is missing or another model's"
            raise InputRefused(f"{wanted}: --tower-path {what}")
    elif not wanted or wanted.startswith(("/", ".", "~")) or os.path.exists(wanted):
        raise UsageError(f"--tower-path {wanted!r}: no such folder")
    else:
        return None, wanted
    if wanted == "relative":
        return tower, os.path.relpath(tower.resolve(), place.folder.resolve())
    return tower, str(_absolute(tower))


def _tower(place: _Place) -> Path:
    """The folder of the tower: beside the folder that names it, or else where that says."""
    link, said = place.link, place.said
    for each in map(snapshot, place.likely):
        if link.leads_to(each):
            return each
    towers = [each for each in place.others if link.leads_to(each)]
    if len(towers) > 1:
        names = ", ".join(each.name for each in towers)
        what = f"{len(towers)} folders beside it are of {link.tower} ({names})"
        raise InputRefused(f"{place.folder}: {what}; name one with --tower-path")
    if isinstance(said, str) and said:
        towers += [each for each in (place.folder / said, place.folder.parent / said) if link.leads_to(snapshot(each))]
    if not towers:
        where = f"{place.folder}: its {link.tower} ({link.field} is {excerpt(repr(said))})"
        raise InputRefused(f"{where} is not found; name its folder with --tower-path")
    return snapshot(towers[0])


def _absolute(folder: Path) -> Path:
    """A folder from the root on, as it is called; links are followed only where `..` would mean another place."""
    return folder.resolve() if ".." in folder.parts else folder.absolute()
