"""Radio meters that a receiver of wireless M-Bus hears: many, the neighbours' among them, most of them encrypted. Pure.

Each is listed with number, maker and medium; of one whose key is missing the frames' open part tells these.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING, Final

from meterway.adapter.choose import candidate_of, medium_of, ranked
from meterway.adapter.detect_questions import Answered, Verdict
from meterway.core.errors import BadDataError
from meterway.meter.codec import CodecError, Decoder
from meterway.meter.diagnose import Finding, hear
from meterway.meter.family import Family
from meterway.meter.mbus import Identity
from meterway.meter.mbus_codes import GROUP_A, OTHER_MEDIUM
from meterway.meter.wmbus_layers import identity_of, read_header, read_link, read_protection, read_session
from meterway.meter.wmbus_receivers import Framer, Heard

if TYPE_CHECKING:
    from meterway.core.reading import PhysicalMeterClass
    from meterway.meter.telegram import Telegram

PROTOCOL: Final = "wmbus"
_NAMED: Final = 8
"""So many meters are named in one finding."""
_LOCKED: Final = frozenset(("encrypted", "bad-key"))


def radio_meters(
    chunks: Sequence[bytes],
    families: Iterable[Family],
    decoder: Decoder,
    keyless: Decoder,
) -> Verdict:
    """Return the meters that were heard; ``decoder`` has the key that was given, ``keyless`` has none."""
    families = [family for family in families if family.protocol == PROTOCOL]
    heard = hear(chunks, decoder)
    meters: dict[str, list[Telegram | CodecError]] = {}
    media: dict[str, PhysicalMeterClass | None] = {}
    for telegram in heard.telegrams:
        meters.setdefault(telegram.meter, []).append(telegram)
    locked = _locked(heard.errors)
    for identity, error in locked.values():
        name = str(identity)
        media[name] = medium_of(GROUP_A.get(identity.device_type, OTHER_MEDIUM))
        meters.setdefault(name, []).append(error)
    sealed = set(_locked(hear(chunks, keyless).errors))
    answered = [
        Answered(
            ranked(candidate_of(family, items, media.get(name), name) for family in families),
            address=name,
            name=name,
            needs=frozenset({"key_file"} if name in sealed else ()),
        )
        for name, items in meters.items()
        if families
    ]
    opened = {telegram.meter for telegram in heard.telegrams}
    return Verdict(answered, _missing_keys({name: each for name, each in locked.items() if name not in opened}))


def _locked(errors: Iterable[CodecError]) -> dict[str, tuple[Identity, CodecError]]:
    """Return the meters whose frames wait for their key, by name."""
    found: dict[str, tuple[Identity, CodecError]] = {}
    for error in errors:
        identity = _identity(error.data) if error.reason in _LOCKED else None
        if identity is not None:
            found.setdefault(str(identity), (identity, error))
    return found


def _identity(raw: bytes) -> Identity | None:
    """Return whose frame it is, as far as it is open."""
    framer = Framer()
    for item in [*framer.feed(raw + b"\n"), *framer.flush()]:
        if isinstance(item, Heard):
            return _sender(item.content)
    return None


def _sender(content: bytes) -> Identity | None:
    """Return the meter; where a radio module speaks for it and hides it, the module."""
    found: Identity | None = None
    with suppress(BadDataError):
        link = read_link(content)
        found = identity_of(link.address)
        session = read_session(link.rest)
        if not session.number:
            found = identity_of(read_header(read_protection(session.rest).rest, link.address).address)
    return found


def _missing_keys(locked: Mapping[str, tuple[Identity, CodecError]]) -> list[Finding]:
    sentences: tuple[tuple[str, str, Callable[[int], str]], ...] = (
        ("encrypted", "no-key", lambda count: f"there is no key for {_counted(count)} whose frames are encrypted"),
        ("bad-key", "wrong-key", lambda count: f"the key is not that of {_counted(count)}"),
    )
    fix = (
        "get each meter's key from whoever operates it, write it into a file and name that as key_file; meters that "
        "are not yours stay shut, as they should"
    )
    found = []
    for reason, code, sentence in sentences:
        names = [name for name, (_, error) in locked.items() if error.reason == reason]
        if names:
            more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
            found.append(Finding(code, f"{sentence(len(names))}: {', '.join(names[:_NAMED])}{more}", fix))
    return found


def _counted(count: int) -> str:
    return f"{count} radio meter{'s' * (count != 1)}"
