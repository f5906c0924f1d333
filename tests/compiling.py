"""How tests compile: their programs run for moments, so XLA is told to spend little time on them.

The tests marked as compiled, which `launch/test.sh --slow` runs apart, compile as users do.
"""

import os

FAST = (
    ""
    if os.environ.get("EMBED_TESTS_COMPILE") == "fully"
    else "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true --xla_cpu_use_fusion_emitters=false "
    "--xla_cpu_emitter_verification_level=0"
)


def on_devices(count: int) -> str:
    """Returns XLA_FLAGS for that many simulated devices."""
    return f"{FAST} --xla_force_host_platform_device_count={count}".strip()
