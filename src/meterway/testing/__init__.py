"""Checks for authors of codecs and drivers."""
