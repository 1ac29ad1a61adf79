"""``python -m meterway`` is the command ``meterway``."""

from meterway.cli import main

main()
