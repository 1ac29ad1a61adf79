"""The outcome of one check of ``meterway doctor``."""

from dataclasses import dataclass
from typing import Final

from meterway.meter.diagnose import Finding

CODES: Final = frozenset(
    (
        *("setup", "telegrams", "recorded", "silent", "clock-wrong", "list-changed", "unmapped", "no-answer"),
        *("status", "meter-id-taken", "meter-id-twice"),
        *("port-missing", "port-rights", "port-held", "port", "unreachable", "file-missing"),
        *("broker", "broker-unreachable", "broker-password", "broker-not-authorised", "broker-refused", "broker-tls"),
        *("not-confirmed", "spool", "receipts", "concentrator", "refused", "not-asked"),
    )
)
"""What ``adapter.doctor`` says beside the findings of ``meter.diagnose``; docs/troubleshooting.md has them all."""


@dataclass(frozen=True, slots=True)
class Check:
    """What was looked at, and what came of it."""

    name: str
    """For people: ``meter 1f0c...``, ``broker``, ``folder``."""
    ok: bool
    detail: str
    fix: str = ""
    """What to do if it is not."""
    code: str = ""
    """A short stable word for programs and for docs/troubleshooting.md; empty: the name is one."""

    @property
    def word(self) -> str:
        """The code, or the name where that is a stable word."""
        return self.code or self.name


def skipped(name: str, why: str, *, code: str) -> Check:
    """Return a check that could not be made; it is no failure."""
    return Check(name, ok=True, detail=f"skipped: {why}", code=code)


def failed(name: str, finding: Finding) -> Check:
    """Return what the bytes say is wrong."""
    return Check(name, ok=False, detail=finding.detail, fix=finding.fix, code=finding.code)
