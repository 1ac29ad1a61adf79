"""The pipe: publish, subscribe, acknowledge. ``bus.session`` is the only file that imports an MQTT library."""
