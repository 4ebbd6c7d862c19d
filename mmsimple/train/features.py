"""Makes the features that a run reads in place of pictures: frozen encoders see each picture once, before training.

They are kept by all that they depend on: the encoders' weights, how they compute, the transforms, a picture's bytes.
Shape letters: N images, C channels, F features of an image.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import torch
import xxhash
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from mmconvert.errors import DiskError, UsageError
from mmconvert.staging import disk_errors
from mmconvert.units import human_bytes
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.images import BadImage, digest, locate
from mmsimple.data.pictures import BLANK, Features
from mmsimple.data.section import DataConfig
from mmsimple.model import MultimodalModel, features_per_image
from mmsimple.train.config import TrainConfig
from mmsimple.train.performance import PATH
from mmsimple.train.start import Say

# Of how features are made: another one makes all of them anew.
VERSION = 1
# Images that encoders see at a time. On a CPU one, which is no slower: what comes out depends in its last bits on what
# else is in a batch, and a run that was stopped while it made features is to go on with the same.
TOGETHER = {"cpu": 1}
TOGETHER_ELSEWHERE = 32


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
    maker = _Maker(model, config.performance.cache_dir or folder / "features", device, config.precision.dtype, say)
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
    say: Say

    def keep(self, data: DataConfig) -> DataConfig:
        """The data with features, all of which are there."""
        features = Features(
            self.folder / _key(self.model, data, self.half),
            features_per_image(self.model.config),
            self.half or torch.float32,
            data.pixels,
        )
        names = sorted(set(MultimodalDataset(data).picture_names()))
        self._announce(features, len(names))
        if data.on_bad_sample == "blank" and features.find(BLANK) is None:
            self._make(features, [Missing(BLANK, data.pixels.blank())])
        begun, made = monotonic(), 0
        together = TOGETHER.get(self.device.type, TOGETHER_ELSEWHERE)
        loader: DataLoader[list[Missing]] = DataLoader(
            _Search(features, data.image_folder, names),  # type: ignore[arg-type]
            batch_size=together,
            num_workers=data.num_workers,
            collate_fn=_missing,
            # For workers' seeds: the random numbers of the run stay what they are.
            generator=torch.Generator(),
        )
        for missing in loader:
            self._make(features, missing)
            made += len(missing)
        self.say(f"features of pictures: {made} made in {monotonic() - begun:.0f} s")
        return replace(data, features=features)

    def _announce(self, features: Features, count: int) -> None:
        """Say how much room the features of so many pictures take. Raises DiskError where there is not as much."""
        folder = features.folder
        with disk_errors(folder, count * features.nbytes):
            folder.mkdir(parents=True, exist_ok=True)
            kept = sum(1 for _ in folder.glob("??/*"))
            free = shutil.disk_usage(folder).free
        each, needed = human_bytes(features.nbytes), max(0, count - kept) * features.nbytes
        whole = f"{folder}: features of pictures, {count} of {each}, {human_bytes(count * features.nbytes)} in all"
        if needed > free:
            raise DiskError(f"{whole}: {human_bytes(needed)} needed, {human_bytes(free)} free")
        self.say(f"{whole}, {kept} of them kept from before")

    @torch.no_grad()
    def _make(self, features: Features, missing: Sequence[Missing]) -> None:
        if missing:
            images = torch.stack([each.pixels for each in missing]).to(self.device)  # [N, C, height, width]
            with torch.autocast(self.device.type, self.half, enabled=self.half is not None):
                encoded = self.model.image_model.encode(images)
            rows = torch.cat([each.flatten(1).to(features.dtype) for each in encoded], 1).cpu()  # [N, F]
            for each, row in zip(missing, rows, strict=True):
                features.keep(each.name, row)


class Missing(NamedTuple):
    """A picture without features, by its digest, [C, height, width]."""

    name: str
    pixels: Tensor


class _Search(Dataset["Missing | None"]):
    """Pictures of a folder; those that have features, or cannot be read, are None."""

    def __init__(self, features: Features, folder: Path, names: Sequence[str]) -> None:
        self.features, self.folder, self.names = features, folder, names

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> Missing | None:
        try:
            path = locate(self.folder, self.names[index])
            name = digest(path)
            return None if self.features.find(name) is not None else Missing(name, self.features.pixels.read(path))
        except BadImage:
            return None


def _missing(found: Sequence[Missing | None]) -> list[Missing]:
    return [each for each in found if each is not None]


def _key(model: MultimodalModel, data: DataConfig, half: torch.dtype | None) -> str:
    """A digest of all that features depend on but for the picture."""
    config = model.config
    computed = [each.encoder for each in config.image_models], config.select, data.transforms, half
    found = xxhash.xxh3_128(repr((VERSION, *computed)).encode())
    for encoder in model.image_model.encoders:
        for name, tensor in encoder.state_dict().items():
            found.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            found.update(tensor.cpu().contiguous().flatten().view(torch.uint8).numpy())
    return found.hexdigest()
