"""All fault scenarios, in the order in which they are run: each theme is a module with ``SCENARIOS``."""

from faults import kills
from faults.scenario import Scenario

SCENARIOS: list[Scenario] = [*kills.SCENARIOS]
