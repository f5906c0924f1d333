"""Eight simulated devices for every test, set before jax loads. Steps block: simulated devices deadlock when they queue."""

import os

os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import pathlib

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent
SHARED = REPOSITORY.parent / "shared"


@pytest.fixture
def shared_data() -> pathlib.Path:
    """The folder of shared data, when it lies beside the repository; else the test is skipped."""
    if not (SHARED / "data").is_dir():
        pytest.skip("needs the shared data beside the repository")
    return SHARED / "data"
