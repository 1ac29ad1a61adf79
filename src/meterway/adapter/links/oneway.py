"""What links that only listen answer to a master."""

from meterway.core.errors import SetupError
from meterway.meter.family import Line


class OneWay:
    """A link on which nothing can be sent."""

    message_bounded = False

    def __init__(self, where: str) -> None:
        self.where = where

    async def write(self, data: bytes) -> None:
        raise SetupError(
            f"{self.where}: {len(data)} bytes are to be sent and this link only listens; a meter that must be asked "
            'needs `type = "serial"`, `"rfc2217"`, `"tcp"` or `"tcp-listener"`'
        )

    async def set_line(self, line: Line) -> None:
        """Do nothing: there is no line, and nobody can be asked over it."""
