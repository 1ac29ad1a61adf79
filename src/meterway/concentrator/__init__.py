"""Concentrator: `smartMeterMessage/...` in, the same bytes on `concentrator/...` out."""
