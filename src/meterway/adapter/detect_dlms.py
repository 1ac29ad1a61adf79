"""Asking for DLMS meters: who is there is asked as the public client, which everybody may be; then as the families say.

Without key or password most meters tell no more than their name. That is said, with what to ask the operator for.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Final, cast

from meterway.adapter.choose import candidate_of, ranked
from meterway.adapter.detect_masters import InTurn, Result
from meterway.adapter.detect_questions import Answered, Conversation, Known, Question, Verdict
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.diagnose import Finding
from meterway.meter.dlms_access import DIRECT_LINE, DlmsAccess, Objects
from meterway.meter.dlms_ask import DlmsAsk
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line
from meterway.meter.iec62056_21_access import FIRST_LINE
from meterway.meter.master import Master
from meterway.meter.telegram import Telegram
from meterway.plugins import make_master

_NAME: Final = ((Obis(0, 0, 42, 0, 0), 1),)
"""The logical device name, which the public client may always read."""
_ANSWER_S: Final = 1.5
_NETWORK_ANSWER_S: Final = 4.0
_PAUSE_S: Final = 3.0
"""Until the meter has forgotten the session before."""
_FAMILIES_S: Final = 300.0


def dlms_optical(known: Known) -> Question:
    """Return the sign-on in mode E of an optical head."""
    return _knock(known, DlmsAsk(optical=True, answer_s=_ANSWER_S), FIRST_LINE, "behind a sign-on in mode E at 300 7E1")


def dlms_hdlc(known: Known) -> Question:
    """Return HDLC from the first byte on."""
    return _knock(known, DlmsAsk(answer_s=_ANSWER_S), DIRECT_LINE, "over HDLC at 9600 8N1")


def dlms_wrapper(known: Known) -> Question:
    """Return the wrapper of TCP."""
    ask = DlmsAsk(transport="wrapper", answer_s=_NETWORK_ANSWER_S)
    return _knock(known, ask, DIRECT_LINE, "in the wrapper of TCP")


def _knock(known: Known, ask: DlmsAsk, line: Line, how: str) -> Question:
    access = DlmsAccess(ask=ask, line=line, attempts=1, session_s=60.0)
    return Question(
        what=f"for a DLMS meter {how}",
        line=line,
        limit_s=60.0,
        make_master=lambda: DlmsMaster(access, Objects(_NAME), known.zone),
        judge=lambda said: _somebody(said, known, ask, line, how),
    )


def _somebody(said: Conversation, known: Known, ask: DlmsAsk, line: Line, how: str) -> Verdict:
    name = next((item.meter for item in said.items if isinstance(item, Telegram)), "")
    refuses = isinstance(said.problem, SetupError) and "association" in str(said.problem)
    if not name and not refuses:
        return Verdict()
    families = [family for family in known.asked("dlms-pull") if _is_asked_so(family, ask)]
    called = f"DLMS meter {name}".rstrip()
    if not families:
        detail = f"a {called} answers {how}, and no family is asked that way"
        fix = "copy the family dlms-pull-optical to /etc/meterway/families, without `optical` and with the line's baud"
        return Verdict(findings=[Finding("no-family", detail, fix)])
    return Verdict(then=[_by_families(known, families, line, called)], outcome=f"a {called} answers")


def _is_asked_so(family: Family, ask: DlmsAsk) -> bool:
    own = family.dlms_ask
    return own is not None and (own.transport, own.optical) == (ask.transport, ask.optical)


def _by_families(known: Known, families: Sequence[Family], line: Line, called: str) -> Question:
    visits = [(family.name, _visiting(known, family)) for family in families]
    return Question(
        what=f"the {called} for its registers, as {len(families)} families are asked",
        line=line,
        limit_s=_FAMILIES_S,
        make_master=lambda: InTurn(visits, pause_s=_PAUSE_S),
        judge=lambda said: _read(said, families, called),
    )


def _visiting(known: Known, family: Family) -> Callable[[], Master]:
    setup = MeterSetup(family=family, zone=known.zone, keys=known.keys, password=known.password)
    return lambda: make_master(setup)


def _read(said: Conversation, families: Iterable[Family], called: str) -> Verdict:
    results = cast("InTurn[str]", said.master).results
    read = ranked(
        candidate_of(family, result.items)
        for family in families
        if (result := results.get(family.name)) is not None and any(isinstance(item, Telegram) for item in result.items)
    )
    fitting = [each for each in read if each.readings]
    if not fitting:
        return Verdict(findings=[_nothing_shown(results, called)])
    return Verdict([Answered(fitting, needs=_needs(fitting[0].family))])


def _nothing_shown(results: dict[str, Result], called: str) -> Finding:
    why = "; ".join(f"as {name}: {result.error}" for name, result in results.items() if result.error is not None)
    detail = f"the {called} answers and shows no registers" + (f" ({why})" if why else "")
    fix = (
        "ask the grid operator for the meter's password or its two keys, then give them: --password-file FILE or "
        "--key-file FILE"
    )
    return Finding("no-rights", detail, fix)


def _needs(family: Family) -> frozenset[str]:
    ask = family.dlms_ask
    if ask is None:
        return frozenset()
    sealed = {"key_file"} if ask.ciphered or ask.security == "gmac" else set()
    return frozenset(sealed | ({"password_file"} if ask.security == "password" else set()))
