"""Which devices may log in to a broker, and what each may then do; whoever has a table of them answers here."""

from dataclasses import dataclass, field
from typing import Protocol

from meterway.core.grants import Grant


@dataclass(frozen=True, slots=True)
class Device:
    """A user of the broker that is not built in."""

    username: str
    """``[A-Za-z0-9_-]{1,64}``; also the beginning of its client ids, see ``core.grants``."""
    secret_digest: bytes = field(repr=False)
    """SHA-256 of its password, UTF-8; no slow hash is needed, as the password is 256 random bits."""
    grant: Grant
    revoked: bool = False


class Directory(Protocol):
    """The devices that may log in."""

    def find(self, username: str) -> Device | None:
        """Return the device of that name as it is now; None if there is none.

        Called at each log-in, and every two seconds for each device that is connected; must not block.
        """
