"""Fixtures for all tests; what they start is real and is cleaned up."""

pytest_plugins = ["support.brokers", "support.postgres", "support.cloud_http"]
