"""Accelerators by name: the devices of slices that are made up, one host of them, and what is known of a chip."""

import dataclasses

import jax
import pytest
from jax.experimental import topologies

from embed.compilation import chips
from embed.errors import ConfigError


@dataclasses.dataclass(frozen=True)
class Device:
    topology: str
    process_index: int
    device_kind: str = "TPU v5 lite"


@pytest.fixture
def slices(monkeypatch):
    """Replaces libtpu by slices of hosts of four chips; returns what was asked for."""
    asked = []

    def describe(platform, topology_name):
        asked.append((platform, topology_name))
        count = chips_in(topology_name)
        devices = [Device(topology_name, i // 4) for i in range(count)]
        return type("Slice", (), {"devices": tuple(devices)})

    monkeypatch.setattr(topologies, "get_topology_desc", describe)
    return asked


def chips_in(topology: str) -> int:
    count = 1
    for n in topology.partition(":")[2].split("x"):
        count *= int(n)
    return count


def test_the_devices_here_are_those_of_jax(slices):
    assert chips.devices_of("here") == jax.devices() and slices == []


def test_the_devices_of_a_slice_need_not_be_there(slices):
    found = chips.devices_of("v5e:4x4")
    assert type(found) is list and found == [Device("v5e:4x4", i // 4) for i in range(16)]
    assert slices == [("tpu", "v5e:4x4")]


@pytest.mark.parametrize(
    "topology, own",
    [
        ("v5e:16x16", "v5e:2x2"),
        ("v6e:8x8", "v6e:2x2"),
        ("v5p:4x4x8", "v5p:2x2x1"),
        ("v5e:2x2", "v5e:2x2"),
        ("v5p:2x2x1", "v5p:2x2x1"),
        ("v5e:1x1", "v5e:1x1"),  # a slice of one host is its own, however small
    ],
)
def test_one_host_of_a_slice_is_a_slice_of_its_own(slices, topology, own):
    found = chips.host_of(topology)
    assert {device.topology for device in found} == {own} and {device.process_index for device in found} == {0}
    assert len(found) == chips_in(own) <= 4
    assert len(slices) == (1 if own == topology else 2)


@pytest.mark.parametrize(
    "error, message",
    [
        (
            ImportError("libtpu is not installed"),
            "a TPU's compiler is in libtpu, which is not installed: pip install 'embed[tpu]'",
        ),
        (
            RuntimeError(f"INVALID: {'x' * 300}\nmore"),
            f"--topology=v5e:3x3: INVALID: {'x' * 141}; slices are named like v5e:16x16, v5p:4x4x8, v6e:8x8",
        ),
        (
            ValueError("no such slice"),
            "--topology=v5e:3x3: no such slice; slices are named like v5e:16x16, v5p:4x4x8, v6e:8x8",
        ),
    ],
)
def test_a_slice_that_cannot_be_described_is_one_line(monkeypatch, error, message):
    def fail(**_):
        raise error

    monkeypatch.setattr(topologies, "get_topology_desc", fail)
    with pytest.raises(ConfigError) as caught:
        chips.devices_of("v5e:3x3")
    assert str(caught.value) == message and caught.value.__cause__ is error


def test_a_chip_is_known_by_its_kind():
    # The memory and the speeds of the data sheet of v5e.
    assert chips.chip_of(Device("", 0)) == chips.Chip("v5e", 15.75 * 2**30, 197e12, 819e9, 200e9, 1.5e9)
    assert chips.chip_of(Device("", 0, "TPU v5")).name == "v5p"
    assert chips.chip_of(Device("", 0, "TPU v6 lite")).name == "v6e"
    assert chips.chip_of(jax.devices()[0]) is None and chips.chip_of(Device("", 0, "TPU v99")) is None
