"""A town of virtual meters: households under one sky, their meters over all protocols, faults on demand."""
