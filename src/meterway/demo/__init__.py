"""The whole platform on one machine, with virtual meters, counted end to end."""
