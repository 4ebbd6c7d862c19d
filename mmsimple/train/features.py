"""Makes the features that a run reads in place of pictures: frozen encoders see each picture once, before training.

They are kept by all that they depend on: the encoders' weights, how they compute, the transforms, a picture's bytes.
Shape letters: N images, C channels, F features of an image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from pathlib import Path
from time import monotonic
from typing import TypeAlias, TypeVar

import numpy as np
import torch
import xxhash
from numpy.typing import NDArray

from mmconvert.errors import UsageError
from mmconvert.staging import check_room, disk_errors
from mmconvert.units import human_bytes
from mmsimple.config import FeedForwardConfig
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.images import BadImage, digest, locate
from mmsimple.data.pictures import BLANK, Features
from mmsimple.data.section import DataConfig
from mmsimple.data.workers import in_order
from mmsimple.model import MultimodalModel, features_per_image
from mmsimple.train.config import TrainConfig
from mmsimple.train.performance import PATH
from mmsimple.train.start import Say

T = TypeVar("T")
Pixels: TypeAlias = NDArray[np.float32]

# Of how features are made: another one makes all of them anew.
VERSION = 1
# Seconds from one line about what is made to the next.
PAUSE = 30.0


def with_features(
    config: TrainConfig, model: MultimodalModel, folder: Path, device: torch.device, say: Say
) -> TrainConfig:
    """The run with features in place of its pictures, which are made unless they are kept already, if it wants that.

    `folder` is that of the run. Raises UsageError where encoders train, DiskError where there is no room, and what
    reading the data raises. Pictures that cannot be read are left for the run to find.
    """
    if config.performance.cache == "none":
        return config
    if any(parameter.requires_grad for each in model.image_model.encoders for parameter in each.parameters()):
        problem = "is features, but encoders train, and what they make of a picture changes"
        raise UsageError(f"{PATH}.cache {problem}; freeze ^image_model.image_model_list, or let it be none")
    place, is_compiled = config.performance.cache_dir or folder / "features", config.performance.compile
    maker = _Maker(model, place, device, config.precision.dtype, is_compiled, say)
    train, validation = config.train_data, config.validation_data
    return replace(
        config,
        train_data=None if train is None else maker.keep(train),
        validation_data=tuple(map(maker.keep, validation)),
    )


@dataclass(frozen=True)
class _Maker:
    """Frozen encoders, and the folder where what they make is kept; `half` is what is computed in (None: float32)."""

    model: MultimodalModel
    folder: Path
    device: torch.device
    half: torch.dtype | None
    is_compiled: bool
    say: Say

    def keep(self, data: DataConfig) -> DataConfig:
        """The data with features, all of which are there."""
        features = Features(
            self.folder / self._key(data), features_per_image(self.model.config), self._kept_in, data.pixels
        )
        with disk_errors(features.folder, 0):
            features.folder.mkdir(parents=True, exist_ok=True)
        names = sorted(set(MultimodalDataset(data).picture_names()))
        # By their digests: of pictures that are the same, one.
        found = dict(filter(None, _of_each(names, _look, features, data)))
        missing = sorted(path for path, is_kept in found.values() if not is_kept)
        self._announce(features, len(found), len(missing))
        if data.on_bad_sample == "blank" and features.find(BLANK) is None:
            self._make(features, [(BLANK, data.pixels.blank().numpy())])
        begun = told = monotonic()
        made = 0
        for some in _batched(_of_each(missing, _open, features, data), self._together):
            self._make(features, [each for each in some if each is not None])
            made += len(some)
            if monotonic() - told > PAUSE:
                told = monotonic()
                left = (told - begun) * (len(missing) - made) / made
                self.say(f"features of pictures: {made} of {len(missing)} made, {left:.0f} s left")
        self.say(f"features of pictures: {made} made in {monotonic() - begun:.0f} s")
        return replace(data, features=features)

    @property
    def _together(self) -> int:
        """Images that encoders see at a time.

        On a CPU one, which is no slower: what comes out depends in its last bits on what else is in a batch, and a run
        that was stopped while it made features is to go on with the same.
        """
        return 1 if self.device.type == "cpu" else 32

    @property
    def _kept_in(self) -> torch.dtype:
        """The half type only where a linear layer comes next, which would round its input to it anyway."""
        config = self.model.config
        after = [each.projection or config.projection for each in config.image_models]
        is_rounded = all(isinstance(each, FeedForwardConfig) for each in after)
        return self.half if self.half is not None and is_rounded else torch.float32

    def _announce(self, features: Features, count: int, missing: int) -> None:
        """Say how much room the features of so many pictures take. Raises DiskError where there is not as much."""
        each, whole = human_bytes(features.nbytes), human_bytes(count * features.nbytes)
        self.say(f"{features.folder}: features of pictures, {count} of {each}, {whole} in all, {missing} to be made")
        if missing:
            check_room(features.folder, missing * features.nbytes)

    @torch.no_grad()
    def _make(self, features: Features, missing: Sequence[tuple[str, Pixels]]) -> None:
        if missing:
            pixels = np.stack([each for _, each in missing])
            images = torch.from_numpy(pixels).to(self.device)  # [N, C, height, width]
            with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
                encoded = self.model.image_model.encode(images)
            rows = torch.cat([each.flatten(1).to(features.dtype) for each in encoded], 1).cpu()  # [N, F]
            for (name, _), row in zip(missing, rows, strict=True):
                features.keep(name, row)

    def _key(self, data: DataConfig) -> str:
        """A digest of all that features depend on but for the picture; the last bits depend on the device, too."""
        config = self.model.config
        encoders = [each.encoder for each in config.image_models]
        computed = (VERSION, encoders, config.select, data.transforms, self.half, self.device.type, self.is_compiled)
        found = xxhash.xxh3_128(repr(computed).encode())
        for encoder in self.model.image_model.encoders:
            for name, tensor in encoder.state_dict().items():
                found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
                found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
        return found.hexdigest()


def _of_each(
    names: Sequence[str], do: Callable[[Features, Path, str], T], features: Features, data: DataConfig
) -> Iterator[T]:
    """What is to be done with each picture, in as many processes as the data is read with."""
    return in_order(partial, (do, features, data.image_folder), ((name,) for name in names), data.num_workers)


def _look(features: Features, folder: Path, name: str) -> tuple[str, tuple[str, bool]] | None:
    """A picture's digest, and with it its name and whether its features are kept; None if it cannot be read."""
    try:
        found = digest(locate(folder, name))
    except BadImage:
        return None
    return found, (name, features.find(found) is not None)


def _open(features: Features, folder: Path, name: str) -> tuple[str, Pixels] | None:
    """A picture's digest and its pixels [C, height, width]; None if it cannot be read."""
    try:
        path = locate(folder, name)
        # An array: of a tensor, torch would share memory with a process that may have ended.
        return digest(path), features.pixels.read(path).numpy()
    except BadImage:
        return None


def _batched(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """So many items at a time; the last are fewer."""
    iterator = iter(items)
    while some := list(islice(iterator, size)):
        yield some
