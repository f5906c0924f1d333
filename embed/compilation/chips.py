"""Accelerators by name: what a chip can do, and the devices of a slice that need not be there.

Memory is what the compiler leaves to a program, as it says itself when a program needs more. Speeds are the makers' data sheets:
docs.cloud.google.com/tpu/docs/v5e, /v5p, /v6e, /tpu7x.
"""

import dataclasses
import os

import jax

from embed.errors import ConfigError

HERE = "here"


@dataclasses.dataclass(frozen=True)
class Chip:
    """One device. `memory` in bytes; `flops` a second in bfloat16; `bandwidth` of its memory and `exchange` with its
    neighbours in bytes a second; `clock` in cycles a second."""

    name: str
    memory: float
    flops: float
    bandwidth: float
    exchange: float
    clock: float


_GIB = float(1 << 30)
_CHIPS = {
    "TPU v5 lite": Chip("v5e", 15.75 * _GIB, 197e12, 819e9, 200e9, 1.5e9),
    "TPU v5": Chip("v5p", 95.74 * _GIB, 459e12, 2765e9, 600e9, 1.75e9),
    "TPU v6 lite": Chip("v6e", 31.25 * _GIB, 918e12, 1640e9, 448e9, 1.75e9),
    # A chip is two devices.
    "TPU7x": Chip("tpu7x", 94.75 * _GIB, 1153e12, 3690e9, 600e9, 2.2e9),
}


def devices_of(topology: str) -> list:
    """Returns the devices of a TPU slice such as 'v5e:16x16', for which programs can be compiled without one; or those 'here'.

    A slice that libtpu does not know, and a missing libtpu, are ConfigErrors.
    """
    if topology == HERE:
        return jax.devices()
    from jax.experimental import topologies

    # libtpu lets one process of a machine in, as it would take the chip; no chip is taken here.
    os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "true")
    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as e:  # jax raises what libtpu says, of several types
        if "not installed" in str(e):
            raise ConfigError("a TPU's compiler is in libtpu, which is not installed: pip install 'embed[tpu]'") from e
        raise ConfigError(
            f"--topology={topology}: {str(e).splitlines()[0][:150]}; slices are named like v5e:16x16, v5p:4x4x8, v6e:8x8"
        ) from e


def host_of(topology: str) -> list:
    """Returns the devices of one host of a slice, as a slice of its own: the compiler takes no part of one."""
    devices = devices_of(topology)
    local = [d for d in devices if d.process_index == devices[0].process_index]
    if len(local) == len(devices):
        return devices
    kind, _, shape = topology.partition(":")
    return devices_of(f"{kind}:{'2x2' if shape.count('x') == 1 else '2x2x1'}")


def chip_of(device) -> Chip | None:
    """Returns what is known of a device; None for one that is not in the table."""
    return _CHIPS.get(device.device_kind)
