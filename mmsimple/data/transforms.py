"""From a picture to what an image encoder sees: the `transforms` list of a CS params file.

The steps are those of torchvision on PIL images, bit for bit, and `expand_to_square` is LLaVA's. Until `to_tensor` a
picture is RGB in PIL, afterwards a float32 tensor [3, H, W]. Sizes are (height, width), as in the files.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmconvert.errors import InputRefused
from mmsimple.data.fields import COLOR, MEAN, SIDES, STD, Kind, one_of
from mmsimple.data.images import BadImage
from mmsimple.sections.supported import below, check_names, nearest, require, shown

Interpolation: TypeAlias = Literal["nearest", "bilinear", "bicubic"]
Size: TypeAlias = tuple[int, int]

FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
}
# What a picture may grow to on its way: 1 GiB, at PIL's 4 bytes a pixel. A line of 1 x 100000 pixels, which is a small
# file, would expand to a square of 40 GB.
MAX_GROWN = 2**28


@dataclass(frozen=True)
class ExpandToSquare:
    """Paste onto the middle of a square as large as the longer side; a pixel that is over goes right or below."""

    background_color: tuple[int, int, int]

    def size_after(self, size: Size) -> Size:
        return max(size), max(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        side = max(image.size)
        square = Image.new("RGB", (side, side), self.background_color)
        square.paste(image, ((side - image.width) // 2, (side - image.height) // 2))
        return square


@dataclass(frozen=True)
class Resize:
    """Resize the shorter side to `size` and the longer one in proportion, rounded down; or both, to a (height, width).

    PIL's filters widen with the factor of a reduction, which others call antialiasing; nearest does not.
    """

    size: int | Size
    interpolation: Interpolation = "bilinear"

    def size_after(self, size: Size) -> Size:
        if isinstance(self.size, tuple):
            return self.size
        height, width = size
        longer = int(self.size * max(size) / min(size))
        return (longer, self.size) if height > width else (self.size, longer)

    def __call__(self, image: Image.Image) -> Image.Image:
        height, width = self.size_after((image.height, image.width))
        return image.resize((width, height), FILTERS[self.interpolation])


@dataclass(frozen=True)
class CenterCrop:
    """Cut out the middle; a picture that is smaller gets a black border first.

    Where the crop would begin at half a pixel, torchvision takes the even one, and puts the odd line of a border right
    or below. CLIP's processor in transformers rounds down always (`rounds_down`), which a params file cannot ask for.
    """

    size: int | Size
    rounds_down: bool = False

    @property
    def sides(self) -> Size:
        return self.size if isinstance(self.size, tuple) else (self.size, self.size)

    def size_after(self, size: Size) -> Size:
        return self.sides

    def start(self, size: Size) -> Size:
        """(top, left) of the crop in a picture of a size; below 0 it begins with black."""
        (height, width), (kept_height, kept_width) = size, self.sides
        return self._offset(height, kept_height), self._offset(width, kept_width)

    def _offset(self, length: int, kept: int) -> int:
        if self.rounds_down:
            return (length - kept) // 2
        return round((length - kept) / 2) if length >= kept else -((kept - length) // 2)

    def __call__(self, image: Image.Image) -> Image.Image:
        (top, left), (height, width) = self.start((image.height, image.width)), self.sides
        return image.crop((left, top, left + width, top + height))


@dataclass(frozen=True)
class ToTensor:
    """From 0 to 1: uint8 [H, W, 3] -> float32 [3, H, W]."""

    def __call__(self, image: Image.Image) -> Tensor:
        pixels = torch.from_numpy(np.array(image))
        return pixels.permute(2, 0, 1).contiguous().to(torch.float32).div(255)


@dataclass(frozen=True)
class Normalize:
    """Less the mean of each channel, over its standard deviation, in float32: [3, H, W] -> [3, H, W]."""

    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(self, pixels: Tensor) -> Tensor:
        mean, std = (torch.tensor(values, dtype=torch.float32).view(3, 1, 1) for values in (self.mean, self.std))
        return pixels.sub(mean).div(std)


PictureStep: TypeAlias = ExpandToSquare | Resize | CenterCrop
Step: TypeAlias = PictureStep | ToTensor | Normalize


@dataclass(frozen=True)
class Transforms:
    """Steps in order: those of a picture, `to_tensor`, then those of a tensor."""

    steps: tuple[Step, ...]

    def __call__(self, image: Image.Image) -> Tensor:
        """An RGB picture -> float32 [3, H, W].

        Raises BadImage, which cannot name the file, for a picture so narrow that a step would make more than MAX_GROWN
        of it.
        """
        self.check(image)
        value: Any = image
        for step in self.steps:
            value = step(value)
        tensor: Tensor = value
        return tensor

    def check(self, image: Image.Image) -> None:
        """Raise BadImage for a picture that cannot be transformed, see `__call__`; nothing is computed."""
        for height, width in self._sizes((image.height, image.width)):
            if height * width > MAX_GROWN:
                grown = f"{image.width} x {image.height} pixels would become {width} x {height} on the way"
                raise BadImage(f"{grown}, more than {MAX_GROWN:,}", "image too large")

    @property
    def output_size(self) -> Size | None:
        """(height, width) of what comes out, or None where it depends on the picture."""
        # Steps that make one size of these two make it of all: only what makes sides equal or fixed ever does.
        square, wide = (list(self._sizes(size))[-1] for size in ((1, 1), (1, 3)))
        return square if square == wide else None

    def _sizes(self, size: Size) -> Iterator[Size]:
        """Those of a picture on its way, from the first to the last."""
        yield size
        for step in self.steps:
            if isinstance(step, PictureStep):
                size = step.size_after(size)
                yield size


TRANSFORMS: dict[str, tuple[Callable[..., Step], dict[str, Kind]]] = {
    "expand_to_square": (ExpandToSquare, {"background_color": COLOR}),
    "resize": (Resize, {"size": SIDES, "interpolation": one_of(*FILTERS)}),
    "center_crop": (CenterCrop, {"size": SIDES}),
    "to_tensor": (ToTensor, {}),
    "normalize": (Normalize, {"mean": MEAN, "std": STD}),
}
DEFAULTS = {"interpolation": "bilinear"}


def read_transforms(section: Any, where: str, path: str) -> Transforms:
    """The `transforms` that stand at a path of the file `where`.

    Raises InputRefused, naming file and entry, for a name or field that does not exist, with the nearest that does; for
    a value that is missing, of the wrong type or out of range; and for an order other than that of `Transforms`.
    """
    if not isinstance(section, list):
        raise InputRefused(f"{where}: {path} is {shown(section)}: it must be a list of transforms")
    steps = tuple(_read(entry, where, below(path, str(n))) for n, entry in enumerate(section))
    is_tensor = False
    for n, step in enumerate(steps):
        at = below(path, str(n))
        match step:
            case ToTensor():
                require(not is_tensor, where, f"{at} is a second to_tensor")
                is_tensor = True
            case Normalize():
                require(is_tensor, where, f"{at}: normalize must come after to_tensor")
            case _:
                require(not is_tensor, where, f"{at}: {section[n]['name']} must come before to_tensor")
    require(is_tensor, where, f"{path} has no to_tensor")
    return Transforms(steps)


def _read(entry: Any, where: str, path: str) -> Step:
    if not isinstance(entry, Mapping):
        raise InputRefused(f"{where}: {path} is {shown(entry)}: it must be a mapping with a name")
    name = entry.get("name")
    if not isinstance(name, str) or name not in TRANSFORMS:
        names = ", ".join(TRANSFORMS)
        raise InputRefused(f"{where}: {path}.name is {shown(name)}; transforms are {names}{nearest(name, TRANSFORMS)}")
    build, kinds = TRANSFORMS[name]
    check_names(entry, {"name", *kinds}, where, path)
    full = {**DEFAULTS, **entry}
    return build(**{field: kind.checked(full.get(field), where, below(path, field)) for field, kind in kinds.items()})


def write_transforms(transforms: Transforms) -> list[dict[str, Any]]:
    """The list that `read_transforms` reads back. Raises InputRefused for a crop that rounds down."""
    return [_write(step) for step in transforms.steps]


def _write(step: Step) -> dict[str, Any]:
    if isinstance(step, CenterCrop) and step.rounds_down:
        raise InputRefused(
            f"center_crop to {list(step.sides)} rounds half a pixel down, as transformers does: no params file says so"
        )
    name, kinds = next((name, kinds) for name, (build, kinds) in TRANSFORMS.items() if build is type(step))
    values = {field: getattr(step, field) for field in kinds}
    return {"name": name} | {field: list(each) if isinstance(each, tuple) else each for field, each in values.items()}
