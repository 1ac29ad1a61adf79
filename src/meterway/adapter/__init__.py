"""SmartMeterAdapter: a meter's bytes in, `smartMeterMessage/...` out."""
