"""What the log of nats-server says: how loud each line is, and whether a disk failed.

    [4711] 2026/11/23 18:43:20.290130 [ERR] Filestore [$MQTT_msgs] Critical write error: no space left on device
    [4711] 2026/11/23 18:43:21.010296 [ERR] 127.0.0.1:37006 - mid:26 - "client id" - what is wrong with it

What clients say of themselves, and topics, stand there too, in quotes: a line is known by how it begins or ends, never
by what is in it. Else anybody who reaches the port could have the broker started again, with a client id alone.
"""

import logging
import re
from collections.abc import Callable

ROOM_BYTES = 16 << 20
"""So much must be free on the disk before a broker that found it full is started again."""

_LINE = re.compile(r"\[\d+\] \S+ \S+ \[([A-Z]{3})\] (.*)", re.DOTALL)
_LOUD = ("WRN", "ERR", "FTL")
_SAID_ALREADY = ("Plaintext passwords detected, use nkeys or bcrypt", "unable to connect: authentication error")
"""The passwords are random, and nobody else can read the file; the reason of the error stands in the line before."""
_FILES = "Filestore ["
_REBUILT = ("will rebuild", "Recovering stream state from index")
"""What nats-server says at the start after a kill: it reads its files anew and loses nothing by it."""
_STARTING = "Starting nats-server"
_STUCK = "] Critical write error"


def level(line: str) -> int:
    """Return the level of a line: what is refused (``[ERR] ... Publish Violation``) is a warning."""
    kind, said = _parts(line)
    if kind not in _LOUD or said.endswith(_SAID_ALREADY):
        return logging.DEBUG
    if said.startswith(_FILES) and any(mark in said for mark in _REBUILT):
        return logging.INFO
    return logging.WARNING


class DiskWatch:
    """Knows from the log when nats-server found its disk full, and when a new start would help.

    A stream that found the disk full (or failing) takes nothing more until nats-server is started again, also when
    there is room again; nothing that it had acknowledged is lost by that.
    """

    def __init__(self, free_bytes: Callable[[], int]) -> None:
        self._free_bytes = free_bytes
        self._is_stuck = False

    def take(self, line: str) -> None:
        """Take note of a line."""
        _, said = _parts(line)
        if said.startswith(_STARTING):
            self._is_stuck = False
        elif said.startswith(_FILES) and _STUCK in said:
            self._is_stuck = True

    @property
    def wants_start(self) -> bool:
        """Whether it takes nothing more, and there is room for it to go on."""
        return self._is_stuck and self._free_bytes() >= ROOM_BYTES


def _parts(line: str) -> tuple[str, str]:
    """Return the kind of a line (``ERR``) and what it says; empty where it is not nats-server's own."""
    found = _LINE.match(line)
    return (found[1], found[2]) if found else ("", "")
