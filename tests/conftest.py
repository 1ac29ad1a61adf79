"""Fixtures for all tests; what they start is real and is cleaned up."""

from hypothesis import HealthCheck, settings

pytest_plugins = ["support.brokers", "support.postgres", "support.cloud_http"]

# A suite tries the same each time and never fails for being slow; ``make fuzz`` tries what is new.
settings.register_profile(
    "suite", deadline=None, derandomize=True, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("suite")
