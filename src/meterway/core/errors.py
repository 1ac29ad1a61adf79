"""What can go wrong, grouped by what the caller does about it.

    MeterwayError
    ├── BadDataError       these bytes are wrong: count them, keep them aside, go on
    ├── TransientError     the other side is away or busy: try again later
    └── SetupError         a person must change something: stop and say what

Messages are sentences that name what, where and, for SetupError, the next step.
"""


class MeterwayError(Exception):
    """Base of all errors raised by Meterway."""


class BadDataError(MeterwayError, ValueError):
    """Bytes or a text from outside that do not mean what they should.

    ``reason`` is a short stable word for counters and filters (``bad-checksum``, ``unknown-property``);
    the message is for people.
    """

    def __init__(self, message: str, *, reason: str) -> None:
        super().__init__(message)
        self.reason = reason


class TransientError(MeterwayError):
    """The other side is away, busy or full; the same call may succeed later."""


class SetupError(MeterwayError):
    """The installation or configuration must be changed by a person before this can work."""
