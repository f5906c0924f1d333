"""Into how many micro-batches a batch is cut: as few as memory takes, and to the same result."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from embed import hosts, sharding
from embed.errors import ConfigError
from embed.training import programs
from embed.training.programs import fit
from embed.types import Batch as TrainBatch


@dataclasses.dataclass(frozen=True)
class Examples:
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Batches:
    examples: Examples
    shards: int = 1
    micro_batches: int = 1


class Analysis:
    """A step that holds 100 bytes for good, and 10 for each pair of a micro-batch."""

    alias_size_in_bytes = output_size_in_bytes = 0
    argument_size_in_bytes = 100

    def __init__(self, batches):
        self.temp_size_in_bytes = 10 * batches.examples.batch_size // (batches.shards * batches.micro_batches)


class Programs:
    made = []

    def __init__(self, batches):
        Programs.made.append(batches.micro_batches)
        self.largest = self
        self.memory_analysis = lambda: Analysis(batches)


@pytest.fixture(autouse=True)
def nothing_made_yet():
    Programs.made.clear()


@pytest.mark.parametrize(
    ("shards", "room", "parts", "tried"),
    [
        (1, 580, 1, [1]),  # 100 + 48 * 10
        (1, 579, 2, [1, 2]),
        (1, 260, 3, [1, 3]),
        (1, 150, 12, [1, 12]),  # 9.6 would do, the next divisor of 48 is 12
        (2, 340, 1, [1]),
        (2, 339, 2, [1, 2]),
    ],
)
def test_as_few_as_fit(shards, room, parts, tried):
    batches, made = fit(Programs, Batches(Examples(48), shards), None, room)
    assert (batches.micro_batches, Programs.made) == (parts, tried)
    assert made.largest.memory_analysis().temp_size_in_bytes + 100 <= room


def test_a_number_that_is_given_is_taken():
    batches, _ = fit(Programs, Batches(Examples(48)), 4, 0)
    assert (batches.micro_batches, Programs.made) == (4, [4])


@pytest.mark.parametrize("room", [105, 99])
def test_what_fits_in_no_way_says_what_to_do(room):
    with pytest.raises(ConfigError, match="batch_size = 48: a step needs .* smaller batch.*MeshShape.fsdp"):
        fit(Programs, Batches(Examples(48)), None, room)


def test_hosts_meet_once_for_each_shape_that_is_compiled(monkeypatch):
    """Gloo gives the hosts of a program thirty seconds from its first run, and a compilation may take one of them longer."""
    met = []
    monkeypatch.setattr(hosts, "meet", lambda devices, what: met.append((len(devices), what)))
    mesh = sharding.make_mesh(devices=jax.devices()[:1])

    def batch(rows: int) -> dict[str, np.ndarray]:
        return {"tokens": np.zeros((1, 1, rows, 4), np.int32)}

    batches = types.SimpleNamespace(shards=1, max_segments=None, largest=lambda: batch(2))
    with jax.set_mesh(mesh):
        state = jax.device_put(jnp.zeros(()), sharding.replicated(mesh))
        shape = jax.ShapeDtypeStruct((), jnp.float32, sharding=sharding.replicated(mesh))
        made = programs.Programs(lambda state, batch: (state + batch["tokens"].sum(), {}), shape, batches, mesh)
        for rows in (2, 2, 3, 3):
            placed = sharding.to_global(TrainBatch(batch(rows)), mesh, 1)
            state, _ = made(state, placed)
    assert met == 2 * [(1, "a training step is compiled")]
