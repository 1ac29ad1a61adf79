"""The pipe: publish, subscribe, acknowledge. ``bus.mqtt`` is the only file that imports an MQTT library."""
