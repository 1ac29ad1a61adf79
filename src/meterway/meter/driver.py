"""What a protocol is to an adapter: a driver, which makes the decoder or the master of one meter.

Meterway's own drivers are in ``meter.drivers``; a package of anybody's brings more by an entry point:

    [project.entry-points."meterway.drivers"]
    my-protocol = "my_package:DRIVER"

The name on the left is the driver's ``protocol``, and what families write as theirs. ``examples/driver-tickbox`` is a
whole package of that kind.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path

from meterway.meter.codec import Decoder
from meterway.meter.dlms_layout import PushList
from meterway.meter.family import Family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.master import Master


@dataclass(frozen=True, slots=True, kw_only=True)
class MeterSetup:
    """What is known of one meter when its decoder or master is made."""

    family: Family
    """With its line as the source sets it: 8 data bits where the port cannot do 7."""
    zone: tzinfo
    """Of the meter's clock."""
    keys: Keys = NO_KEYS
    address: str = ""
    """Which meter of a shared line or link, as the protocol writes it; empty: the only one."""
    password: str | None = field(default=None, repr=False)
    lists: tuple[PushList, ...] = ()
    """What DLMS pushes leave out, where nobody says of which family the meter is; empty: the family's."""

    @classmethod
    def unknown(
        cls, protocol: str, zone: tzinfo, *, keys: Keys = NO_KEYS, lists: tuple[PushList, ...] = ()
    ) -> "MeterSetup":
        """Return the setup for bytes of a meter of which only the protocol is known."""
        family = Family(title=protocol, protocol=protocol, timezone="UTC", interval_s=1)
        return cls(family=family, zone=zone, keys=keys, lists=lists)


@dataclass(frozen=True, slots=True, kw_only=True)
class Driver:
    """A protocol; it has a decoder, a master, or both.

    Both are made by functions that raise a SetupError with the next step where the setup is of no use to them: a
    missing key, an address of no known form.
    """

    protocol: str
    """As families write it, and the name of its entry point."""
    title: str
    """For people: "Tickbox counter, text lines"."""
    decoder: Callable[[MeterSetup], Decoder] | None = None
    """For meters that send by themselves, and for captures of those that are asked."""
    master: Callable[[MeterSetup], Master] | None = None
    """For meters that are asked: one session with one meter."""
    families: Path | None = None
    """A folder with families of meters that the driver's package brings."""

    def asks(self, family: Family) -> bool:
        """Return whether the meters of ``family`` are asked; where the protocol has both ways, the family says."""
        return self.master is not None and (self.decoder is None or family.is_asked)
