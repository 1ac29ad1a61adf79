"""Concentrator: takes what adapters publish and passes it on to the cloud, byte for byte."""
