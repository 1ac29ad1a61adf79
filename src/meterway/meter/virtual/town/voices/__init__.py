"""How meters of the town speak: one small file a protocol, one entry a family (``catalogue``)."""
