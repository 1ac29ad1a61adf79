"""Asking a Tickbox: one line there, one line back."""

import re
from typing import Final

from meterway.core.errors import SetupError, TransientError
from meterway.meter.codec import CodecError
from meterway.meter.master import Deadline, Done, Send, Steps
from meterway_tickbox.codec import TickboxDecoder

ANSWER_S: Final = 2.0
ATTEMPTS: Final = 3

_ADDRESS: Final = re.compile(r"[0-9]{2}")
_PASSWORD: Final = re.compile(r"[!-~]{1,20}")


class TickboxMaster:
    """One session with one meter; a ``meterway.meter.master.Master``."""

    def __init__(self, address: str, password: str | None) -> None:
        """Raise a SetupError where address or password cannot be sent."""
        if not _ADDRESS.fullmatch(address):
            raise SetupError(f"the address of a Tickbox is two digits, not {address[:20]!r}; it is printed on its lid")
        if password is not None and not _PASSWORD.fullmatch(password):
            raise SetupError("the password of a Tickbox has 1 to 20 characters and no blanks")
        self._address = address
        self._request = f"?{address}{f' {password}' if password else ''}\n".encode("ascii")
        self._attempt = 0
        self._decoder = TickboxDecoder()

    def start(self, now: float) -> Steps:  # noqa: ARG002 - the driver of the line keeps the deadline
        """See ``Master``."""
        return self._ask()

    def feed(self, data: bytes, now: float) -> Steps:
        """See ``Master``; answers of others, which share the line, are passed over."""
        steps: Steps = []
        for item in self._decoder.feed(data, now):
            if isinstance(item, CodecError) and item.reason == "refused":
                return [*steps, Done(SetupError(f"{item}; put its password into the file of `password_file`"))]
            if isinstance(item, CodecError):
                steps.append(item)
            elif item.meter == self._address:
                return [*steps, item, Done()]
        return steps

    def on_timeout(self, now: float) -> Steps:
        """See ``Master``."""
        steps: Steps = [item for item in self._decoder.idle(now) if isinstance(item, CodecError)]
        if self._attempt < ATTEMPTS:
            return steps + self._ask()
        return [*steps, Done(TransientError(f"Tickbox {self._address} does not answer ({ATTEMPTS} attempts)"))]

    def _ask(self) -> Steps:
        self._attempt += 1
        return [Send(self._request), Deadline(ANSWER_S)]
