"""The language all components share. Pure: no I/O, no clock, no event loop."""
