"""All fault scenarios, in the order in which they are run: each theme is a module with ``SCENARIOS``."""

from faults import kills, links, wrong
from faults.scenario import Scenario

SCENARIOS: list[Scenario] = [*kills.SCENARIOS, *links.SCENARIOS, *wrong.SCENARIOS]
