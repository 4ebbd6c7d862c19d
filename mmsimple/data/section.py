"""A dataloader of a params file: `MultimodalSimpleHDF5MapDataProcessor`, into a frozen description."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from mmconvert.errors import InputRefused
from mmconvert.schema import load
from mmsimple.data.pictures import Features, Pixels
from mmsimple.data.transforms import Transforms, read_transforms
from mmsimple.sections.supported import below, require

SCHEMA = "cs-multimodal-data"

OnBadSample = Literal["error", "skip", "blank"]
Range = tuple[float, float]


@dataclass(frozen=True)
class Source:
    """Folders of training files; of all their samples, those in `ranges` (shares of 1), with a weight in a mixture."""

    folders: tuple[Path, ...]
    ranges: tuple[Range, ...] = ((0.0, 1.0),)
    weight: float = 1.0


@dataclass(frozen=True)
class DataConfig:
    """How samples become batches.

    With `drop_last` all batches are full, and none is dropped: what an epoch has left over begins the next one's first.
    `image_size` is (channels, height, width). `max_num_img` and `num_patches`, where given, are what the files must
    have. `on_bad_sample` says what becomes of one whose picture cannot be had: an error, a smaller batch, or a blank
    picture. `features` are read in place of pictures where they are kept.
    """

    sources: tuple[Source, ...]
    image_folder: Path
    image_size: tuple[int, int, int]
    transforms: Transforms
    batch_size: int
    shuffle: bool = False
    shuffle_seed: int = 0
    drop_last: bool = True
    num_workers: int = 0
    prefetch_factor: int | None = None
    persistent_workers: bool = False
    max_num_img: int | None = None
    num_patches: int | None = None
    on_bad_sample: OnBadSample = "error"
    features: Features | None = None

    @property
    def pictures(self) -> Pixels | Features:
        """What batches hold of pictures."""
        return self.features or self.pixels

    @property
    def pixels(self) -> Pixels:
        return Pixels(self.transforms, self.image_size)


def read_data(section: Any, where: str, path: str = "") -> DataConfig:
    """The dataloader that a section at a path of the file `where` describes; folders are not looked at.

    Raises InputRefused, naming file and field, for a field that does not exist, with the nearest one that does, and for
    values that make no sense.
    """
    schema = load(SCHEMA)
    try:
        full: dict[str, Any] = schema.complete(section, path)
    except ValueError as error:
        raise InputRefused(f"{where}: {error}") from error
    channels, height, width = full["image_data_size"]
    transforms = read_transforms(full["transforms"], where, below(path, "transforms"))
    made = transforms.output_size
    at, given = below(path, "image_data_size"), full["image_data_size"]
    one_size = "transforms make pictures of their own sizes, which no batch can hold; end with center_crop"
    require(made is not None, where, f"{at} is {given}, but {one_size}")
    require((channels, made) == (3, (height, width)), where, f"{at} is {given}, but transforms make 3 x {made}")
    # Without workers there is nothing that could read ahead or outlive an epoch.
    workers: int = full["num_workers"]
    return DataConfig(
        sources=tuple(_sources(full, where, path)),
        image_folder=Path(full["img_data_dir"]),
        image_size=(channels, height, width),
        transforms=transforms,
        batch_size=full["batch_size"],
        shuffle=full["shuffle"],
        shuffle_seed=full["shuffle_seed"],
        drop_last=full["drop_last"],
        num_workers=workers,
        prefetch_factor=full["prefetch_factor"] if workers else None,
        persistent_workers=full["persistent_workers"] and workers > 0,
        max_num_img=full["max_num_img"],
        num_patches=full["num_patches"],
        on_bad_sample=full["on_bad_sample"],
    )


def _sources(full: Mapping[str, Any], where: str, path: str) -> Iterator[Source]:
    folders, mixture = full["data_dir"], full["mixture"]
    both = folders is not None and mixture is not None
    require(
        not both, where, f"{below(path, 'data_dir')} and mixture are both given; one of them says where the data is"
    )
    if mixture is None:
        require(folders is not None, where, f"{below(path, 'data_dir')} is missing, and so is mixture")
        yield Source(_paths(folders), _ranges(full["data_subset"], where, below(path, "data_subset")))
        return
    require(full["data_subset"] is None, where, f"{below(path, 'data_subset')}: in a mixture, each entry has its own")
    for number, each in enumerate(mixture):
        at = below(path, f"mixture.{number}.data_subset")
        yield Source(_paths(each["data_dir"]), _ranges(each.get("data_subset"), where, at), float(each["weight"]))


def _paths(folders: str | list[str]) -> tuple[Path, ...]:
    return tuple(map(Path, [folders] if isinstance(folders, str) else folders))


def _ranges(text: str | None, where: str, path: str) -> tuple[Range, ...]:
    """`0.0-0.5`, or several with commas between: shares of a dataset, in order and apart."""
    if text is None:
        return ((0.0, 1.0),)
    problem = f"{path} is {text!r:.60}: write ranges of shares in order, such as 0.0-0.5 or 0.1-0.3,0.7-1.0"
    try:
        found = tuple((float(start), float(end)) for start, end in (each.split("-") for each in text.split(",")))
    except ValueError as error:
        raise InputRefused(f"{where}: {problem}") from error
    edges = [edge for each in found for edge in each]
    rises = all(a < b for a, b in found) and edges == sorted(edges)
    require(rises and edges[0] >= 0 and edges[-1] <= 1, where, problem)
    return found
