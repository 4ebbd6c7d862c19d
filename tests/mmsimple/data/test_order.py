"""The order of samples: a stream that is told by how many have come."""

from __future__ import annotations

from collections import Counter

import pytest
import torch

from mmsimple.data.order import Batches, Mixture, Plain


def epochs(batches: Batches, count: int) -> list[list[list[int]]]:
    """The batches of some epochs, all of them used."""
    found = []
    for _ in range(count):
        epoch = list(batches)
        batches.streamed += sum(map(len, epoch))
        found.append(epoch)
    return found


def flat(batches: list[list[list[int]]]) -> list[int]:
    return [number for epoch in batches for batch in epoch for number in batch]


@pytest.mark.parametrize("epoch", [0, 1, 7])
def test_an_epoch_is_the_permutation_of_its_seed(epoch: int) -> None:
    expected = torch.randperm(100, generator=torch.Generator().manual_seed(5 + epoch))
    assert torch.equal(Plain(100, 5).epoch(epoch), expected)


def test_unshuffled_samples_come_as_they_lie() -> None:
    assert epochs(Batches(Plain(6, None), 2, drop_last=True), 2) == [[[0, 1], [2, 3], [4, 5]]] * 2


def test_what_is_left_over_begins_the_next_epoch() -> None:
    batches = Batches(Plain(5, None), 2, drop_last=True)
    assert epochs(batches, 3) == [[[0, 1], [2, 3]], [[4, 0], [1, 2], [3, 4]], [[0, 1], [2, 3]]]
    assert batches.streamed == 14


def test_without_drop_last_the_last_batch_is_smaller() -> None:
    assert epochs(Batches(Plain(5, None), 2, drop_last=False), 2) == [[[0, 1], [2, 3], [4]]] * 2


@pytest.mark.parametrize("drop_last", [True, False])
def test_the_length_is_what_an_iteration_gives(drop_last: bool) -> None:
    batches = Batches(Plain(11, 0), 3, drop_last=drop_last)
    for _ in range(4):
        epoch = list(batches)
        assert len(batches) == len(epoch)
        batches.streamed += sum(map(len, epoch))


def test_a_batch_may_be_larger_than_the_dataset() -> None:
    assert epochs(Batches(Plain(3, None), 8, drop_last=True), 2) == [
        [[0, 1, 2, 0, 1, 2, 0, 1]],
        [[2, 0, 1, 2, 0, 1, 2, 0]],
    ]


@pytest.mark.parametrize("drop_last", [True, False])
@pytest.mark.parametrize("streamed", [0, 3, 7, 10, 12, 26])
def test_taken_up_anywhere_the_stream_goes_on_as_it_would_have(streamed: int, drop_last: bool) -> None:
    whole = flat(epochs(Batches(Plain(10, 3), 3, drop_last=drop_last), 9))
    resumed = Batches(Plain(10, 3), 3, drop_last=drop_last)
    resumed.streamed = streamed
    again = flat(epochs(resumed, 4))
    assert again == whole[streamed : streamed + len(again)]
    assert again


def test_another_batch_size_changes_no_order() -> None:
    whole = flat(epochs(Batches(Plain(10, 3), 5, drop_last=True), 4))
    assert flat(epochs(Batches(Plain(10, 3), 2, drop_last=True), 4)) == whole


def test_reading_ahead_moves_nothing() -> None:
    batches = Batches(Plain(10, 3), 2, drop_last=True)
    first = next(iter(batches))
    assert next(iter(batches)) == first
    assert batches.streamed == 0


@pytest.mark.parametrize(("streamed", "epoch"), [(0, 0), (3, 0), (4, 1), (9, 2)])
def test_a_batch_belongs_to_the_epoch_that_it_ends_in(streamed: int, epoch: int) -> None:
    batches = Batches(Plain(5, None), 2, drop_last=True)
    batches.streamed = streamed
    assert batches.epoch == epoch


# --- mixtures -------------------------------------------------------------------------------------------------------


def origins(order: Mixture, epoch: int, first: int) -> Counter[str]:
    return Counter("first" if number < first else "second" for number in order.epoch(epoch).tolist())


@pytest.mark.parametrize("seed", [None, 3])
def test_every_epoch_has_each_datasets_share(seed: int | None) -> None:
    order = Mixture([30, 10], [1, 3], seed)
    assert order.length == 40
    for epoch in range(3):
        assert origins(order, epoch, 30) == {"first": 10, "second": 30}


@pytest.mark.parametrize("seed", [None, 3])
def test_all_samples_of_a_dataset_come_equally_often(seed: int | None) -> None:
    order = Mixture([30, 10], [1, 3], seed)
    seen = Counter(number for epoch in range(3) for number in order.epoch(epoch).tolist())
    assert [seen[number] for number in range(30)] == [1] * 30
    assert [seen[number] for number in range(30, 40)] == [9] * 10


def test_shares_add_up_whatever_the_weights() -> None:
    assert Mixture([3, 3, 4], [1, 1, 1], None).shares == [4, 3, 3]
    assert Mixture([7, 3], [1e-9, 1.0], None).shares == [0, 10]


def test_unshuffled_datasets_come_evenly_mixed() -> None:
    assert Mixture([4, 4], [1, 1], None).epoch(0).tolist() == [0, 4, 1, 5, 2, 6, 3, 7]
    # Two of the first at 1/4 and 3/4, six of the second, which has four, between them.
    assert Mixture([4, 4], [1, 3], None).epoch(0).tolist() == [4, 0, 5, 6, 7, 1, 4, 5]


def test_a_shuffled_mixture_is_the_same_every_time_and_another_in_each_epoch() -> None:
    order = Mixture([30, 10], [1, 1], 3)
    assert torch.equal(order.epoch(1), Mixture([30, 10], [1, 1], 3).epoch(1))
    assert not torch.equal(order.epoch(0), order.epoch(1))
    assert not torch.equal(order.epoch(0), Mixture([30, 10], [1, 1], 4).epoch(0))
