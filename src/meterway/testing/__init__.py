"""Checks for authors of codecs and drivers."""

from meterway.testing.codec import GateReport, check_codec

__all__ = ["GateReport", "check_codec"]
