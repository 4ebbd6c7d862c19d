"""Batches: cut to their longest text, in the order of the seed, and taken up again where they were left."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmconvert.errors import InputRefused
from mmsimple.data.dataset import MultimodalDataset
from mmsimple.data.h5 import ROWS, Row
from mmsimple.data.loader import Loader, _begin, collate
from mmsimple.model import Batch, MultimodalModel
from tests.mmsimple.data.pictures import make_dataset
from tests.mmsimple.data.worked_example import A, B, C, S
from tests.mmsimple.small import FLOAT32, MULTIMODAL, apart, drawn

SIZE = (3, 28, 28)
ROOT = Path(__file__).parents[3]


def batch_of(loader: Loader) -> Batch:
    (batch,) = loader
    return batch


def untrimmed(loader: Loader) -> Batch:
    """All samples of a dataset as they lie in the files, padding and empty slots included."""
    samples = [loader.dataset[index] for index in range(len(loader.dataset))]
    rows = [sample.row for sample in samples if sample.row is not None]
    data = torch.from_numpy(np.stack([row.data for row in rows]))
    fields = dict(zip(ROWS, data.unbind(1), strict=True))
    images = torch.zeros(len(rows), 2, *SIZE)
    for number, sample in enumerate(samples):
        for slot, picture in sample.pictures.items():
            images[number, slot] = picture
    positions = torch.from_numpy(np.stack([row.positions for row in rows]))
    return Batch(image_data=images, image_data_loc=positions, **fields)


def seconds(batches: Iterator[Batch] | Loader) -> list[list[int]]:
    """The second token of every sample, which tells them apart."""
    return [batch.text_input_ids[:, 1].tolist() for batch in batches]


def numbered(count: int) -> list[Row]:
    rows = []
    for number in range(count):
        row = (A, C)[number % 2]
        data = row.data.copy()
        data[0, 1] = number
        rows.append(row._replace(data=data))
    return rows


# --- what is in a batch ---------------------------------------------------------------------------------------------


def test_a_batch_is_cut_to_its_longest_text(tmp_path: Path) -> None:
    batch = batch_of(Loader(make_dataset(tmp_path, batch_size=3)))
    for name in ROWS:
        found: Tensor = getattr(batch, name)
        assert (found.shape, found.dtype) == ((3, 12), torch.int32)
        row = ROWS.index(name)
        assert found.tolist() == [each.data[row, :12].tolist() for each in (A, B, C)]
    assert batch.image_data_loc is not None
    assert batch.image_data_loc.tolist() == [
        [[2, 3, 4, 5], [12] * 4],
        [[1, 2, 3, 4], [6, 7, 8, 9]],
        [[12] * 4, [12] * 4],
    ]
    assert batch.image_data is not None
    assert (batch.image_data.shape, batch.image_data.dtype) == ((3, 2, *SIZE), torch.float32)
    assert [bool(each.any()) for each in batch.image_data.flatten(0, 1)] == [True, False, True, True, False, False]


def test_slots_that_no_sample_uses_are_left_out(tmp_path: Path) -> None:
    batch = batch_of(Loader(make_dataset(tmp_path, [A, C], batch_size=2)))
    assert batch.image_data is not None
    assert batch.image_data_loc is not None
    assert (batch.image_data.shape[1], batch.image_data_loc.shape[1]) == (1, 1)


def test_a_batch_of_text_has_no_images_at_all(tmp_path: Path) -> None:
    batch = batch_of(Loader(make_dataset(tmp_path, [C, C], batch_size=2)))
    assert (batch.image_data, batch.image_data_loc) == (None, None)
    assert batch.text_input_ids.shape == (2, 3)


@pytest.mark.parametrize("scaling", ["num_tokens", "batch_size"])
def test_the_loss_is_that_of_the_untrimmed_batch(scaling: Any, tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, batch_size=3))
    model = drawn(MultimodalModel(replace(MULTIMODAL, loss_scaling=scaling)))
    whole, cut = untrimmed(loader), batch_of(loader)
    assert whole.text_input_ids.shape == (3, S)
    losses, gradients = [], []
    for batch in (whole, cut):
        model.zero_grad()
        loss = model.loss(batch)
        torch.autograd.backward(loss)
        losses.append(loss.item())
        gradients.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)
    theirs, ours = gradients
    assert theirs.keys() == ours.keys()
    assert max(apart(ours[name], theirs[name]) for name in theirs) < FLOAT32


# --- the stream -----------------------------------------------------------------------------------------------------


def test_a_shuffled_epoch_is_the_permutation_of_its_seed(tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, numbered(10), batch_size=5, shuffle=True, shuffle_seed=4))
    for epoch in range(2):
        expected = torch.randperm(10, generator=torch.Generator().manual_seed(4 + epoch)).tolist()
        assert loader.epoch == epoch
        assert [*chain(*seconds(loader))] == expected
    assert loader.streamed == 20


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("persistent", [True, False])
def test_workers_change_nothing(workers: int, persistent: bool, tmp_path: Path) -> None:
    fields = {"batch_size": 3, "shuffle": True, "num_workers": workers, "persistent_workers": persistent}
    loader = Loader(make_dataset(tmp_path, numbered(10), **fields))
    plain = Loader(make_dataset(tmp_path / "plain", numbered(10), batch_size=3, shuffle=True))
    for _ in range(3):
        assert len(loader) == len(plain)
        assert seconds(loader) == seconds(plain)


@pytest.mark.parametrize("workers", [0, 2])
def test_taken_up_after_any_batch_the_stream_goes_on(workers: int, tmp_path: Path) -> None:
    config = make_dataset(tmp_path, numbered(10), batch_size=4, shuffle=True, num_workers=workers)
    whole = Loader(config)
    expected = seconds(whole) + seconds(whole)
    for used in range(4):
        stopped = Loader(config)
        taken: list[Batch] = []
        while len(taken) < used:
            for batch in stopped:
                taken.append(batch)
                if len(taken) == used:
                    break
        resumed = Loader(config)
        resumed.load_state_dict(stopped.state_dict())
        assert resumed.streamed == 4 * used
        again = seconds(resumed)
        assert again == expected[used : used + len(again)]
        assert again


def test_the_state_is_the_number_of_samples(tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, numbered(10), batch_size=4, num_workers=2, prefetch_factor=2))
    next(iter(loader))
    assert loader.state_dict() == {"samples_streamed": 4}


def test_a_mixture_is_streamed(tmp_path: Path) -> None:
    one, other = (make_dataset(tmp_path / name, numbered(9)[first : first + 3]) for name, first in (("a", 0), ("b", 6)))
    mixture = [
        {"data_dir": str(each.sources[0].folders[0]), "weight": weight} for each, weight in ((one, 1), (other, 2))
    ]
    config = make_dataset(tmp_path / "c", data_dir=None, mixture=mixture, batch_size=9, shuffle=True)
    loader = Loader(config)
    for _ in range(2):
        epoch = [*chain(*seconds(loader))]
        assert sorted(epoch) == [0, 1, 2, 6, 6, 7, 7, 8, 8]


# --- bad samples ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("workers", [0, 2])
def test_a_bad_sample_is_an_error_that_names_it(workers: int, tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, batch_size=3, num_workers=workers))
    (tmp_path / "images" / "b.png").unlink()
    with pytest.raises(InputRefused) as caught:
        list(loader)
    message = str(caught.value)
    assert message.startswith(f"{tmp_path / 'data' / '0.h5'}: sample 1: {tmp_path / 'images' / 'b.png'}")
    assert message.endswith("on_bad_sample: skip or blank passes over such samples")
    assert "\n" not in message


def test_a_process_ends_although_workers_are_left(tmp_path: Path) -> None:
    """As they are where an error is still referred to, and with it the frames that it has come through."""
    make_dataset(tmp_path, num_workers=2)
    left = (
        "import sys; from pathlib import Path; from mmsimple.data.loader import Loader\n"
        "from mmsimple.data.section import read_data; from tests.mmsimple.data.test_section import SECTION\n"
        f"places = {{'data_dir': {str(tmp_path / 'data')!r}, 'img_data_dir': {str(tmp_path / 'images')!r}}}\n"
        "loader = Loader(read_data({**SECTION, **places, 'batch_size': 1, 'num_workers': 2}, 'params.yaml'))\n"
        "sys.modules['left'] = batches = iter(loader)\n"
        "print(next(batches).text_input_ids.shape[0])\n"
    )
    done = subprocess.run([sys.executable, "-c", left], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, "1\n", "")


def test_a_worker_ends_although_it_begins_after_the_one_that_it_works_for_was_killed() -> None:
    context = multiprocessing.get_context("fork")
    reading, writing = context.Pipe(duplex=False)

    def work(killed: int) -> None:
        while os.getppid() == killed:
            time.sleep(0.01)
        _begin(0, ending=multiprocessing.Semaphore(0))
        writing.send("begun")
        time.sleep(60)

    def start() -> None:
        context.Process(target=work, args=(os.getpid(),)).start()
        os.kill(os.getpid(), signal.SIGKILL)

    parent = context.Process(target=start)
    parent.start()
    parent.join()
    writing.close()
    assert reading.poll(30)
    assert reading.recv() == "begun"
    # Its end of the pipe is closed when it ends.
    assert reading.poll(30)
    with pytest.raises(EOFError):
        reading.recv()


@pytest.mark.parametrize("workers", [0, 2])
def test_skipped_samples_are_left_out_and_counted(workers: int, tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, batch_size=3, on_bad_sample="skip", num_workers=workers))
    (tmp_path / "images" / "b.png").unlink()
    assert seconds(loader) == [[11, 12]]
    assert loader.bad_samples == {"image missing": 1}
    assert loader.streamed == 3


def test_blanked_pictures_are_counted_and_their_text_stays(tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, batch_size=3, on_bad_sample="blank"))
    (tmp_path / "images" / "b.png").unlink()
    batch = batch_of(loader)
    assert batch.text_input_ids[:, 1].tolist() == [11, 0, 12]
    assert batch.image_data is not None
    assert not batch.image_data[1, 1].any()
    assert loader.bad_samples == {"image missing": 1}


def test_a_batch_of_bad_samples_alone_is_no_batch(tmp_path: Path) -> None:
    loader = Loader(make_dataset(tmp_path, [A, B, C], batch_size=1, on_bad_sample="skip"))
    (tmp_path / "images" / "sub" / "a.png").unlink()
    assert seconds(loader) == [[12]]
    assert loader.bad_samples == {"image missing": 2}
    assert loader.streamed == 3


def test_the_position_past_the_end_moves_with_the_end(tmp_path: Path) -> None:
    dataset = MultimodalDataset(make_dataset(tmp_path))
    batch = collate([dataset[0]], dataset.config.pictures).batch
    assert batch is not None
    assert batch.image_data_loc is not None
    assert batch.image_data_loc.tolist() == [[[2, 3, 4, 5]]]
    both = collate([dataset[1], dataset[0]], dataset.config.pictures).batch
    assert both is not None
    assert both.image_data_loc is not None
    assert both.image_data_loc[1, 1].tolist() == [both.text_input_ids.shape[1]] * 4
