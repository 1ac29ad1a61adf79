"""Meterway: any meter's readings, exactly once, over MQTT."""

__version__ = "0.1.0"
