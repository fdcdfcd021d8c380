"""What every test may use."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["tests.controlplane.fixtures"]

# Test machines are shared and stall; how long an example takes is no property of the code.
settings.register_profile("kinema", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("kinema")
