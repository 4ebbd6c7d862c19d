"""Batches for training, as a stream that can be stopped and taken up again anywhere.

Shape letters: B samples, S positions of a text, L of the longest text in a batch, I image slots, P tokens of an image.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from multiprocessing.synchronize import Semaphore
from threading import Thread
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.utils.data import DataLoader

from mmconvert.errors import InputRefused
from mmsimple.data.dataset import BadSample, Loaded, MultimodalDataset
from mmsimple.data.h5 import ROWS, Row
from mmsimple.data.order import Batches, Mixture, Order, Plain
from mmsimple.data.pictures import Pictures
from mmsimple.data.section import DataConfig
from mmsimple.model import Batch

# Seconds from one look of a worker at whether the process that it works for is there to the next.
PAUSE = 1.0


class Collated(NamedTuple):
    """A batch, how many samples it was to have, and those that were bad; there is no batch of nothing."""

    batch: Batch | None
    streamed: int
    bad: tuple[BadSample, ...]


class Loader:
    """The batches of a dataset. An iteration gives what is left of an epoch; the next one goes on from there.

    `bad_samples` counts, by reason, what was left out or blanked. Raises InputRefused, see `MultimodalDataset`, and in
    an iteration for a bad sample, naming it, unless the config passes over them.
    """

    def __init__(self, config: DataConfig) -> None:
        self.config = config
        self.dataset = MultimodalDataset(config)
        self.bad_samples: Counter[str] = Counter()
        self._batches = Batches(_order(self.dataset, config), config.batch_size, drop_last=config.drop_last)
        self._loader: DataLoader[Collated] = DataLoader(
            self.dataset,  # type: ignore[arg-type]
            batch_sampler=self._batches,
            collate_fn=partial(collate, pictures=config.pictures),
            num_workers=config.num_workers,
            prefetch_factor=config.prefetch_factor,
            persistent_workers=config.persistent_workers,
            worker_init_fn=_worker_init() if config.num_workers else None,
            # Seeds for workers, which draw nothing: without a generator of its own they would come out of the random
            # numbers that dropout has, and a run that begins an iteration anew would have others.
            generator=torch.Generator(),
        )

    @property
    def streamed(self) -> int:
        """How many samples have come, bad ones included: all that it takes to go on from here."""
        return self._batches.streamed

    @property
    def epoch(self) -> int:
        """The epoch that the next batch belongs to, from 0; one that holds the rest of another belongs to the later."""
        return self._batches.epoch

    def __len__(self) -> int:
        """How many batches the next iteration has."""
        return len(self._batches)

    def in_epochs(self, count: int) -> int:
        """How many batches so many epochs have, from the first sample on, if none of them is all bad."""
        return self._batches.in_epochs(count)

    def __iter__(self) -> Iterator[Batch]:
        for collated in self._loader:
            if collated.bad and self.config.on_bad_sample == "error":
                raise InputRefused(f"{collated.bad[0].message}; on_bad_sample: skip or blank passes over such samples")
            self._batches.streamed += collated.streamed
            self.bad_samples.update(each.reason for each in collated.bad)
            if collated.batch is not None:
                yield collated.batch

    def state_dict(self) -> dict[str, Any]:
        return {"samples_streamed": self.streamed}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on where the loader stood that gave this state; to be called between iterations."""
        self._batches.streamed = int(state["samples_streamed"])


def _worker_init() -> Callable[[int], None]:
    """What each worker of a loader begins with; at the end of this process, however that comes, they end, too."""
    ending = multiprocessing.Semaphore(0)
    atexit.register(ending.release)
    return partial(_begin, ending=ending)


def _begin(worker: int, ending: Semaphore) -> None:
    """Leave SIGTERM, which may go to a whole group of processes, to the one that reads what workers give.

    By SIGTERM multiprocessing ends workers too that are left at the end, and would wait for them for ever.
    """
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    Thread(target=_end_with_parent, args=(ending,), daemon=True).start()


def _end_with_parent(ending: Semaphore) -> None:
    """torch looks for the parent too, but only from some time on: if that was killed before, it looks for ever."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    while not ending.acquire(timeout=PAUSE):
        if not parent.is_alive():
            os._exit(1)
    # For the next one.
    ending.release()
    os._exit(0)


def _order(dataset: MultimodalDataset, config: DataConfig) -> Order:
    if len(config.sources) == 1:
        return Plain(len(dataset), config.shuffle_seed if config.shuffle else None)
    weights = [source.weight for source in config.sources]
    return Mixture(dataset.lengths, weights, config.shuffle_seed, shuffle=config.shuffle)


def collate(samples: Sequence[Loaded], pictures: Pictures) -> Collated:
    """A batch of samples, cut to the longest text that is in it: what is cut off is padding, which changes nothing.

    Its tensors are those of `mmsimple.model.Batch`, with image slots up to the last one that holds a picture; without
    any picture it has no images at all.
    """
    bad = tuple(sample.bad for sample in samples if sample.bad is not None)
    rows = [sample.row for sample in samples if sample.row is not None]
    if not rows:
        return Collated(None, len(samples), bad)
    length = max(map(_real_length, rows))
    data = torch.from_numpy(np.stack([row.data[:, :length] for row in rows]))  # [B, 5, L]
    fields = dict(zip(ROWS, data.unbind(1), strict=True))
    given = [sample.pictures for sample in samples if sample.row is not None]
    slots = max((slot + 1 for each in given for slot in each), default=0)
    if not slots:
        return Collated(Batch(**fields), len(samples), bad)
    positions = torch.from_numpy(np.stack([row.positions[:, :] for row in rows]))[:, :slots]  # [B, I, P]
    images = torch.zeros(len(rows), slots, *pictures.shape, dtype=pictures.dtype)
    for number, each in enumerate(given):
        for slot, picture in each.items():
            images[number, slot] = picture
    # The slot past the end moves with the end.
    positions = positions.clamp(max=length)
    fields |= {pictures.field: images, "image_data_loc": positions}
    return Collated(Batch(**fields), len(samples), bad)


def _real_length(row: Row) -> int:
    """How far a sample's text goes: up to the last position that is no padding."""
    padding = row.data[ROWS.index("key_padding_mask")]
    real = np.flatnonzero(padding == 0)
    return int(real[-1]) + 1 if len(real) else 1
