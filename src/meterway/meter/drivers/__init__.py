"""Meterway's own drivers: one file each, imported when one of its meters is read.

Each has its entry point in pyproject.toml, as a driver of anybody's has.
"""
