"""How meters are asked that nobody has described yet: what a question is, and those of IEC 62056-21 and M-Bus.

Those of Modbus are in ``detect_modbus``, those of DLMS in ``detect_dlms``.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import tzinfo
from typing import Final

from meterway.adapter.choose import Candidate, candidate_of, medium_of, ranked
from meterway.core.errors import MeterwayError, SetupError
from meterway.core.reading import PhysicalMeterClass
from meterway.meter.codec import CodecError
from meterway.meter.diagnose import Finding
from meterway.meter.family import Family, Line
from meterway.meter.iec62056_21_access import FIRST_LINE, Access, Readout
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.keys import NO_KEYS, Keys
from meterway.meter.master import Master
from meterway.meter.mbus_address import LAST_PRIMARY, SecondaryAddress
from meterway.meter.mbus_codes import GROUP_A, OTHER_MEDIUM
from meterway.meter.mbus_frames import ADDRESS_ANY
from meterway.meter.mbus_search import MbusFound, MbusSearch
from meterway.meter.mbus_session import mbus_line
from meterway.meter.telegram import Telegram

_WAKE_UP_BYTES: Final = 55
_MBUS_BAUDS: Final = (2400, 9600, 300)

Items = Sequence[Telegram | CodecError]


@dataclass(frozen=True, slots=True, kw_only=True)
class Known:
    """What is known before anybody answers."""

    families: Sequence[Family]
    """Of what may be there."""
    zone: tzinfo
    """Of the meters' clocks."""
    keys: Keys = NO_KEYS
    password: str | None = field(default=None, repr=False)

    def asked(self, protocol: str) -> list[Family]:
        """Return the families of a protocol that are asked."""
        return [family for family in self.families if family.protocol == protocol and family.is_asked]


@dataclass(frozen=True, slots=True)
class Answered:
    """A meter that answered, or was heard."""

    fitting: Sequence[Candidate]
    """The families that it may be of, the likeliest first; at least one."""
    address: str = ""
    """Where several share the link; empty for the only one."""
    name: str = ""
    """How it calls itself, where no telegram says it."""
    needs: frozenset[str] = frozenset()
    """What its configuration must name: ``key_file``, ``password_file``."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """How a session with whoever is there went."""

    master: Master
    items: Items
    problem: MeterwayError | None
    heard_bytes: int


@dataclass(frozen=True, slots=True)
class Verdict:
    """What came of a step."""

    meters: Sequence[Answered] = ()
    findings: Sequence[Finding] = ()
    then: Sequence["Question"] = ()
    """Asked next: somebody is there."""
    outcome: str = ""
    """For people; empty: as the conversation went."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """A way to ask."""

    what: str
    """For people, behind "asking" and "asked": "for M-Bus meters at 2400 8E1"."""
    line: Line
    limit_s: float
    """So long it takes at most; where nobody answers, some seconds."""
    make_master: Callable[[], Master]
    judge: Callable[[Conversation], Verdict]
    sets_line: bool = False
    """It differs from another one only in the line's settings: not asked where those cannot be set."""


def iec62056_21(known: Known) -> Question:
    """Return the sign-on at 300 baud."""
    return Question(
        what="with /?! at 300 7E1 (IEC 62056-21)",
        line=FIRST_LINE,
        limit_s=200.0,
        make_master=lambda: Iec62056Master(known.zone, Access(attempts=2), Readout()),
        judge=lambda said: _readout(said, known.asked("iec62056_21")),
    )


def iec62056_21_wake_up(known: Known) -> Question:
    """Return the same for meters whose battery feeds the interface only after it was woken up."""
    families = known.asked("iec62056_21")
    woken = [family for family in families if family.sign_on and family.sign_on.wake_up_bytes] or families
    return Question(
        what="with wake-up and /?! at 300 7E1 (IEC 62056-21)",
        line=FIRST_LINE,
        limit_s=200.0,
        make_master=lambda: Iec62056Master(known.zone, Access(attempts=1, wake_up_bytes=_WAKE_UP_BYTES), Readout()),
        judge=lambda said: _readout(said, woken),
    )


def _readout(said: Conversation, families: Iterable[Family]) -> Verdict:
    fitting = ranked(candidate_of(family, said.items) for family in families)
    if fitting and fitting[0].heard.telegrams:
        return Verdict([Answered(fitting)])
    return Verdict(findings=fixed_line(said))


def fixed_line(said: Conversation) -> list[Finding]:
    """Return what is wrong where a meter answered and wants a line that cannot be set from here."""
    if not isinstance(said.problem, SetupError) or not said.heard_bytes:
        return []
    fix = "set the gateway to RFC 2217 and name it rfc2217://HOST:PORT, or put the optical head on this machine"
    return [Finding("line-cannot-be-set", str(said.problem), fix)]


def mbus(known: Known) -> list[Question]:
    """Return the searches for meters of M-Bus, one a baud rate."""
    return [_mbus(known, baud) for baud in _MBUS_BAUDS]


def _mbus(known: Known, baud: int) -> Question:
    return Question(
        what=f"for M-Bus meters at {baud} 8E1",
        line=mbus_line(baud),
        limit_s=900.0,
        make_master=lambda: MbusSearch(known.zone, bauds=(baud,), baud=baud, primary=(ADDRESS_ANY,)),
        judge=lambda said: _mbus_meters(said, known, baud, is_last=False),
        sets_line=baud != _MBUS_BAUDS[0],
    )


def _mbus_scan(known: Known, baud: int) -> Question:
    return Question(
        what=f"each of the {LAST_PRIMARY} M-Bus addresses at {baud} 8E1",
        line=mbus_line(baud),
        limit_s=600.0,
        make_master=lambda: MbusSearch(
            known.zone, bauds=(baud,), baud=baud, primary=range(1, LAST_PRIMARY + 1), secondary=False
        ),
        judge=lambda said: _mbus_meters(said, known, baud, is_last=True),
    )


def _mbus_meters(said: Conversation, known: Known, baud: int, *, is_last: bool) -> Verdict:
    """Return the meters by secondary address, or by the primary one where they have no other."""
    families = known.asked("mbus")
    found = said.master.found if isinstance(said.master, MbusSearch) else []
    meters = {_mbus_address(each): each for each in found if each.telegram is not None}
    locked = {_mbus_address(each): each for each in found if each.telegram is None}
    findings = [
        Finding(
            "encrypted",
            f"the M-Bus meter {each.identity or address} sends its data encrypted, which is not read on wire yet",
            "ask its operator to switch the encryption off, or for a meter with radio: that is read with its key",
        )
        for address, each in locked.items()
    ]
    if meters and families:
        answered = [_mbus_meter(each, families, address) for address, each in meters.items()]
        return Verdict(answered, findings)
    asks_all = said.heard_bytes and not locked and not is_last
    return Verdict((), findings, [_mbus_scan(known, baud)] if asks_all else ())


def _mbus_meter(found: MbusFound, families: Iterable[Family], address: str) -> Answered:
    items = [found.telegram] if found.telegram else []
    return Answered(ranked(candidate_of(family, items, _medium(found)) for family in families), address)


def _mbus_address(found: MbusFound) -> str:
    return str(SecondaryAddress.of(found.identity)) if found.identity else str(found.primary)


def _medium(found: MbusFound) -> PhysicalMeterClass | None:
    """Return what a meter measures by its own word."""
    return medium_of(GROUP_A.get(found.identity.device_type, OTHER_MEDIUM)) if found.identity else None
