"""Devices: who may log in at the broker, how they enrol, and what the broker refused to them."""
