"""Random numbers of drawn examples: functions of seed, task, record and epoch, and evenly spread."""

import numpy as np
import pytest

from embed.data.draws import Draws, mix


def draws(count=1000, seed=0):
    n = np.arange(count)
    return Draws(n % 3, n // 3, n % 7, seed)


def test_the_numbers_of_an_example_do_not_depend_on_the_others():
    made = draws()
    whole = made.noise("a", 4)
    np.testing.assert_array_equal(made[100:200].noise("a", 4), whole[100:200])
    np.testing.assert_array_equal(made.noise("a", 2), whole[:, :2])
    assert made[100:200].rng(5).random() == made.rng(105).random()


def test_they_change_with_everything_they_are_keyed_by():
    one = Draws(*(np.array([n]) for n in (1, 2, 3)), seed=4)
    others = [
        Draws(*(np.array([n]) for n in key[:3]), seed=key[3])
        for key in [(0, 2, 3, 4), (1, 0, 3, 4), (1, 2, 0, 4), (1, 2, 3, 0)]
    ]
    numbers = [d.noise("a", 3).tolist() for d in (one, *others)] + [one.noise("b", 3).tolist()]
    assert len({str(x) for x in numbers}) == 6
    assert len({d.rng(0).random() for d in (one, *others)}) == 5
    assert (
        one.noise("a", 3, every_epoch=False).tolist()
        == Draws(one.tasks, one.records, one.epochs + 5, 4).noise("a", 3, every_epoch=False).tolist()
    )


def test_they_are_evenly_spread():
    noise = draws(20_000).noise("a", 5)
    bits = np.unpackbits(noise.view(np.uint8).reshape(-1, 8), axis=1)
    np.testing.assert_allclose(bits.mean(0), 0.5, atol=0.01)
    counts = np.bincount(noise.argmin(1), minlength=5)
    np.testing.assert_allclose(counts / 20_000, 0.2, atol=0.015)
    assert np.unique(noise).size == noise.size


def test_mix_is_splitmix64():
    """The first numbers of SplitMix64 from the seed 1234567, as its author's C code gives them."""
    golden = 0x9E3779B97F4A7C15
    states = np.array([(1234567 + n * golden) % (1 << 64) for n in range(3)], np.uint64)
    assert mix(states).tolist() == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_examples_are_told_apart_by_task():
    made = draws(10)
    found = dict(made.by_task())
    assert [found[k].tolist() for k in sorted(found)] == [[0, 3, 6, 9], [1, 4, 7], [2, 5, 8]]
    assert len(made[2:5]) == 3
    with pytest.raises(IndexError):
        made.rng(10)
