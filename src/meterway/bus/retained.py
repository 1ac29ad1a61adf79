"""Retained messages of the embedded broker have a share of its store, so that nobody fills it with them.

A device may retain a message on any topic of its own, and those are without number. At the bound the oldest go.
"""

import msgspec
import nats
from nats.errors import Error as NatsError

from meterway.core.errors import TransientError

WITHIN_S = 5

_INFO = "$JS.API.STREAM.INFO.$MQTT_rmsgs"
_UPDATE = "$JS.API.STREAM.UPDATE.$MQTT_rmsgs"


class _Answer(msgspec.Struct, frozen=True):
    config: dict[str, object] = {}
    error: dict[str, object] | None = None


async def bound_retained(port: int, *, user: str, password: str, limit_bytes: int) -> None:
    """Have nats-server keep at most ``limit_bytes`` of retained messages, also after its next start.

    ``user`` may do everything; a client of MQTT has connected before.

    Raises:
        TransientError: nats-server is not there, or does not do so.
    """
    try:
        client = await nats.connect(
            f"nats://127.0.0.1:{port}",
            user=user,
            password=password,
            name="meterway",
            allow_reconnect=False,
            connect_timeout=WITHIN_S,
        )
        try:
            known = _read((await client.request(_INFO, timeout=WITHIN_S)).data)
            wanted = msgspec.json.encode({**known.config, "max_bytes": limit_bytes})
            _read((await client.request(_UPDATE, wanted, timeout=WITHIN_S)).data)
        finally:
            await client.close()
    except (OSError, NatsError, TimeoutError) as error:
        raise TransientError(f"nats-server does not bound its retained messages: {error}") from error


def _read(data: bytes) -> _Answer:
    answer = msgspec.json.decode(data, type=_Answer)
    if answer.error is not None:
        raise TransientError(f"nats-server does not bound its retained messages: {answer.error}")
    return answer
