"""How meters are asked that nobody has described yet: by each protocol's question to whoever is there."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import tzinfo
from typing import Final

from meterway.meter.family import Family, Line
from meterway.meter.iec62056_21_access import FIRST_LINE, Access, Readout
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.master import Master
from meterway.meter.mbus_address import SecondaryAddress
from meterway.meter.mbus_search import MbusSearch
from meterway.meter.mbus_session import mbus_line
from meterway.meter.telegram import Telegram

_ANY_MBUS_METER: Final = 254
_MBUS_BAUDS: Final = (2400, 9600, 300)

Meters = dict[str, list[Telegram]]
"""What each meter that answered has said, by its address; empty for the only one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A way to ask."""

    doing: str
    """For people: "asking with /?! at 300 baud"."""
    done: str
    """The same, afterwards."""
    line: Line
    limit_s: float
    families: Sequence[Family]
    """Of what may answer."""
    make_master: Callable[[], Master]
    meters: Callable[[Master, list[Telegram]], Meters]
    """From the master after its session, and the telegrams that it handed over."""


def questions(families: Iterable[Family], zone: tzinfo) -> list[Question]:
    """Return all that can be asked, with the families that may answer; ``zone`` is that of the meters' clocks."""
    families = list(families)
    return [_iec62056_21(families, zone), *(_mbus(families, zone, baud) for baud in _MBUS_BAUDS)]


def _of(families: Iterable[Family], protocol: str) -> list[Family]:
    return [family for family in families if family.protocol == protocol and family.is_asked]


def _iec62056_21(families: Iterable[Family], zone: tzinfo) -> Question:
    return Question(
        doing="asking with /?! at 300 7E1 (IEC 62056-21), which takes up to three minutes for a long list",
        done="asked with /?! at 300 7E1 (IEC 62056-21)",
        line=FIRST_LINE,
        limit_s=200.0,
        families=_of(families, "iec62056_21"),
        make_master=lambda: Iec62056Master(zone, Access(attempts=2), Readout()),
        meters=lambda _, telegrams: {"": telegrams} if telegrams else {},
    )


def _mbus(families: Iterable[Family], zone: tzinfo, baud: int) -> Question:
    return Question(
        doing=f"asking for M-Bus meters at {baud} 8E1",
        done=f"asked for M-Bus meters at {baud} 8E1",
        line=mbus_line(baud),
        limit_s=600.0,
        families=_of(families, "mbus"),
        make_master=lambda: MbusSearch(zone, bauds=(baud,), baud=baud),
        meters=_mbus_meters,
    )


def _mbus_meters(master: Master, _: list[Telegram]) -> Meters:
    """Return the meters by secondary address, or by the primary one where they have no other."""
    meters: Meters = {}
    for found in master.found if isinstance(master, MbusSearch) else ():
        address = str(SecondaryAddress.of(found.identity)) if found.identity else str(found.primary)
        meters[address] = [] if found.telegram is None else [found.telegram]
    return meters
