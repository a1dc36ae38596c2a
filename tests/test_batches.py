"""Decoding ahead: in order, in bounded memory, each photo on its own."""

import threading
import time

import pytest

from zerotag.data.batches import network_batches, pixel_batches
from zerotag.data.photos import PhotoError


@pytest.mark.parametrize(("count", "batch", "threads"), [(0, 4, 2), (1, 4, 2), (8, 4, 1), (23, 4, 3), (5, 100, 8)])
def test_in_order(count: int, batch: int, threads: int) -> None:
    def decode(item: int) -> int:
        time.sleep(0.002 * (item % 3))  # later ones are ready first
        return item * item

    batches = list(pixel_batches(range(count), decode, batch, threads))
    assert [item for each in batches for item in each.items] == list(range(count))
    assert [value for each in batches for value in each.results] == [item * item for item in range(count)]
    assert all(len(each) == batch for each in batches[:-1])


def test_a_bad_photo_fails_alone() -> None:
    reasons = {2: PhotoError("2: corrupt"), 5: OSError(5, "Input/output error"), 6: MemoryError()}

    def decode(item: int) -> int:
        if item in reasons:
            raise reasons[item]
        return item

    batches = list(pixel_batches(range(10), decode, 4, 2))
    assert [item for each in batches for item in each.items] == [0, 1, 3, 4, 7, 8, 9]
    failed = dict(failure for each in batches for failure in each.failed)
    assert failed == {2: "2: corrupt", 5: "[Errno 5] Input/output error", 6: "MemoryError"}


def test_a_mistake_in_the_program_is_not_hidden() -> None:
    with pytest.raises(ZeroDivisionError):
        list(pixel_batches([1, 0], lambda item: 1 / item, 4, 2))


def test_memory_is_bounded() -> None:
    """No more is decoded than a batch ahead, however slow the network is."""
    lock, begun = threading.Lock(), []

    def decode(item: int) -> int:
        with lock:
            begun.append(item)
        return item

    used = 0
    for each in pixel_batches(iter(range(1000)), decode, 10, 3):
        used += len(each)
        if used <= 50:
            time.sleep(0.02)
            assert len(begun) <= used + 10 + 3


def test_it_decodes_while_the_batch_is_used() -> None:
    started = time.perf_counter()
    for _ in pixel_batches(range(16), lambda item: time.sleep(0.02), 4, 2):
        time.sleep(0.04)
    assert time.perf_counter() - started < 16 * 0.02 / 2 + 4 * 0.04  # the sum of both


def test_stopping_early_leaves_no_threads() -> None:
    before = threading.active_count()
    batches = pixel_batches(range(1000), lambda item: time.sleep(0.001), 4, 4)
    next(batches)
    batches.close()
    assert threading.active_count() == before


@pytest.mark.parametrize(("count", "batch", "at_once"), [(0, 8, 4), (1, 8, 4), (23, 8, 4), (23, 4, 8)])
def test_the_network_takes_a_few_photos_at_a_time(count: int, batch: int, at_once: int) -> None:
    sizes = []

    def network(decoded: list[int]) -> list[int]:
        sizes.append(len(decoded))
        return [value * value for value in decoded]

    def decode(item: int) -> int:
        if item == 5:
            raise PhotoError("5: corrupt")
        return -item

    batches = list(network_batches(range(count), decode, network, batch, at_once, 2))
    good = [item for item in range(count) if item != 5]
    assert [item for each in batches for item in each.items] == good
    assert [value for each in batches for value in each.results] == [item * item for item in good]
    assert [failure for each in batches for failure in each.failed] == [(5, "5: corrupt")] * (count > 5)
    assert sum(sizes) == len(good) and max(sizes, default=0) <= at_once
    assert all(len(each) == batch for each in batches[:-1])


def test_an_error_of_the_network_is_raised() -> None:
    def network(decoded: list[int]) -> list[int]:
        raise PhotoError("no memory left")

    with pytest.raises(PhotoError, match="no memory left"):
        list(network_batches(range(9), int, network, 4, 2, 2))
