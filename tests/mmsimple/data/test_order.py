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


def mixture(lengths: list[int], weights: list[float], *, shuffle: bool, seed: int = 3) -> Mixture:
    return Mixture(lengths, weights, seed, shuffle=shuffle)


@pytest.mark.parametrize("shuffle", [False, True])
def test_an_epoch_is_as_long_as_it_takes_for_every_sample_to_come(shuffle: bool) -> None:
    # Half of the weight on 30 samples: an epoch has 60, of which 30 are those 10 three times.
    order = mixture([30, 10], [1, 1], shuffle=shuffle)
    assert order.length == 60
    for epoch in range(2):
        seen = Counter(order.epoch(epoch).tolist())
        assert [seen[number] for number in range(30)] == [1] * 30
        assert [seen[number] for number in range(30, 40)] == [3] * 10


def test_what_has_little_weight_need_not_come_whole() -> None:
    order = mixture([1000, 10], [1, 99], shuffle=False)
    assert order.length == 10
    assert sum(number >= 1000 for number in order.epoch(0).tolist()) == 10
    # Where nothing has more, it is the least that makes all of them come.
    assert mixture([10] * 40, [1] * 40, shuffle=False).length == 400


def test_weights_are_normalized_and_shares_rounded_down() -> None:
    assert mixture([10, 10], [2, 6], shuffle=True).length == 10 + 30
    assert mixture([7, 3], [2, 1], shuffle=True).length == 7 + 3
    assert mixture([3, 3, 4], [1, 1, 1], shuffle=True).length == 12


def test_unshuffled_each_datasets_samples_come_as_they_lie_in_turns() -> None:
    found = mixture([50, 50], [1, 1], shuffle=False).epoch(0).tolist()
    first, second = ([number for number in found if (number < 50) is is_first] for is_first in (True, False))
    assert (first, second) == ([*range(50)], [*range(50, 100)])
    assert 50 not in (found.index(50), found[49])
    assert mixture([50, 50], [1, 1], shuffle=False).epoch(7).tolist() == found
    assert mixture([50, 50], [1, 1], shuffle=False, seed=4).epoch(0).tolist() != found


def test_a_shuffled_mixture_is_a_permutation_of_its_seed_and_epoch() -> None:
    order = mixture([30, 10], [1, 1], shuffle=True)
    row = torch.tensor([*range(30), *[*range(30, 40)] * 3])
    for epoch in range(2):
        assert torch.equal(
            order.epoch(epoch), row[torch.randperm(60, generator=torch.Generator().manual_seed(3 + epoch))]
        )
