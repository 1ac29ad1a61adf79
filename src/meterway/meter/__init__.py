"""SmartMeter: what meters say. Pure codecs (bytes in, telegrams out), families as data, and virtual meters."""
