"""Bytes of a link that can be shown to others: who speaks in them is hidden, and what is wrong with them stays. Pure.

First what the protocol itself calls a name is replaced, then every form of the names that the telegrams were found to
have, then the checksums are mended. Whatever is hidden, the length stays, so that the bytes stay cut as they came.
Protocols that nothing here knows, and those in which names cannot be told from values (Modbus, DLMS that is asked),
are not shown at all.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Final

from meterway.adapter.doctor.hide.dlms import hide_dlms, hide_encrypted_p1, mend_dlms
from meterway.adapter.doctor.hide.identities import leaks, replaced
from meterway.adapter.doctor.hide.json import hide_json
from meterway.adapter.doctor.hide.mbus import hide_mbus, mend_mbus
from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.adapter.doctor.hide.sml import hide_sml, mend_sml
from meterway.adapter.doctor.hide.text import hide_lines, hide_readout, mend_p1, mend_readout
from meterway.adapter.doctor.hide.wmbus import hide_wmbus, mend_wmbus
from meterway.adapter.raw import Chunk
from meterway.meter.iec62056_21 import strip_parity
from meterway.meter.recognise import recognise

_Hide = Callable[[bytes, Pseudonyms], bytes]
_Mend = Callable[[bytes, bytes], bytes]


def _as_it_is(_: bytes, after: bytes) -> bytes:
    return after


_READOUT: Final = "iec62056_21"
_LINES: Final = ("p1", _READOUT)

_WAYS: Final[Mapping[str, tuple[_Hide, _Mend]]] = {
    "": (lambda data, pseudonyms: pseudonyms.shuffled(data), _as_it_is),
    "p1": (hide_lines, mend_p1),
    "p1-encrypted": (hide_encrypted_p1, _as_it_is),
    _READOUT: (hide_readout, mend_readout),
    "sml": (hide_sml, mend_sml),
    "dlms": (hide_dlms, mend_dlms),
    "mbus": (hide_mbus, mend_mbus),
    "wmbus": (hide_wmbus, mend_wmbus),
    "json": (hide_json, _as_it_is),
    "pulse": (lambda data, _: data, _as_it_is),
}
"""By protocol; empty: nothing is known of the bytes, and only their statistics stay."""


def spoken(data: bytes, protocol: str, *, is_read: bool) -> str:
    """Return of which protocol ``data`` are: ``protocol`` if a frame of it was seen, else the recognised one, or none.

    Text that was recognised though it has parity bits is taken for a readout, whatever it is.
    """
    if is_read:
        return protocol
    known = recognise(data)
    if known is None:
        return ""
    return _READOUT if known.protocol in _LINES and not data.isascii() else known.protocol


def hide(chunks: Sequence[Chunk], protocol: str, names: Collection[str], pseudonyms: Pseudonyms) -> list[Chunk] | None:
    """Return the chunks as of somebody else; None if that cannot be done with certainty.

    ``protocol`` is what ``spoken`` says of them, ``names`` are those of ``identities``.
    """
    way = _WAYS.get(protocol)
    if way is None:
        return None
    hide_, mend = way
    data = b"".join(chunk.data for chunk in chunks)
    hidden = mend(data, replaced(hide_(data, pseudonyms), names, pseudonyms))
    if len(hidden) != len(data) or leaks(hidden, names) or leaks(strip_parity(hidden), names):
        return None
    shown, at = [], 0
    for chunk in chunks:
        shown.append(Chunk(chunk.time, hidden[at : at + len(chunk.data)]))
        at += len(chunk.data)
    return shown
