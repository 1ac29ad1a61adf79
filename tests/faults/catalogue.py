"""All fault scenarios, in the order in which they are run: each theme is a module with ``SCENARIOS``."""

from faults import backlog, clocks, cuts, disks, exhaustion, kills, links, losses, peers, wrong
from faults.scenario import Scenario

SCENARIOS: list[Scenario] = [
    *kills.SCENARIOS,
    *cuts.SCENARIOS,
    *disks.SCENARIOS,
    *clocks.SCENARIOS,
    *exhaustion.SCENARIOS,
    *losses.SCENARIOS,
    *backlog.SCENARIOS,
    *links.SCENARIOS,
    *wrong.SCENARIOS,
    *peers.SCENARIOS,
]
