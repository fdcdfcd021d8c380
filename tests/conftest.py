"""What every test may use."""

import os

from hypothesis import HealthCheck, settings

# Before anything loads gRPC, which else prepares for forks: a program that the tests start then aborts now and then
# between fork and exec, for its pollers have lost their files.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

pytest_plugins = ["tests.controlplane.fixtures"]

# Test machines are shared and stall; how long an example takes is no property of the code.
settings.register_profile("kinema", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kinema")
