"""The users of a mosquitto and their grants, through its dynamic-security plugin.

mosquitto needs in its configuration (``mosquitto_ctrl dynsec init`` makes the file and the administrator):

    allow_anonymous false
    plugin /usr/lib/x86_64-linux-gnu/mosquitto_dynamic_security.so
    plugin_opt_config_file /var/lib/mosquitto/dynamic-security.json

It hashes passwords itself, so a user is written when its password is known. It has no limit on how much a user
publishes; ``message_size_limit`` and ``max_connections`` in its configuration hold for all. A change of rights, like a
revocation, ends the user's connections at once; with other rights it may come back.
"""

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

import msgspec

from meterway.bus.bus import BrokerConfig, Delivery
from meterway.bus.mqtt import MqttBus
from meterway.core.errors import SetupError, TransientError
from meterway.core.grants import Grant

ANSWER_WITHIN_S = 10.0

_COMMANDS = "$CONTROL/dynamic-security/v1"
_ANSWERS = f"{_COMMANDS}/response"
_DEFAULTS = {"publishClientSend": False, "publishClientReceive": True, "subscribe": False, "unsubscribe": True}
_THERE_ALREADY = frozenset({"Role already exists", "Client already exists"})
_GONE_ALREADY = frozenset({"Role not found", "Client not found"})

_Command = Mapping[str, object]


class _Response(msgspec.Struct, frozen=True, rename="camel"):
    command: str = ""
    correlation_data: str = ""
    error: str = ""


class _Responses(msgspec.Struct, frozen=True):
    responses: tuple[_Response, ...] = ()


class DynamicSecurity:
    """Writes users and grants, as an administrator of the plugin, as long as the ``async with``."""

    def __init__(self, administrator: BrokerConfig) -> None:
        self._bus = MqttBus(
            administrator,
            f"meterway-permits-{secrets.token_hex(8)}",
            at_most_once={_ANSWERS: self._take},
            clean_session=True,
        )
        self._waiting: dict[str, asyncio.Future[tuple[_Response, ...]]] = {}

    async def __aenter__(self) -> Self:
        """Connect, and see to it that what is not granted is refused.

        Raises:
            TransientError: mosquitto does not answer.
            SetupError: it refuses that.
        """
        await self._bus.__aenter__()
        try:
            acls = [{"acltype": name, "allow": allow} for name, allow in _DEFAULTS.items()]
            await self._do([{"command": "setDefaultACLAccess", "acls": acls}])
        except BaseException:
            await self._bus.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._bus.__aexit__(kind, error, trace)

    async def put(
        self, username: str, grant: Grant, *, password: str | None = None, client_id: str | None = None
    ) -> None:
        """Let ``username`` log in and do what ``grant`` says, and nothing else; make it if it is not there.

        ``password`` None leaves it as it is. ``client_id`` binds a user that has a single connection to one client
        id; the client ids of others end in a secret (see ``bus.mqtt``).

        Raises:
            TransientError, SetupError: as above.
        """
        allowed = [("publishClientSend", each) for each in grant.publish]
        allowed += [("subscribePattern", each) for each in grant.read]
        acls = [{"acltype": kind, "topic": each, "allow": True} for kind, each in allowed]
        client: dict[str, object] = {"username": username, "roles": [{"rolename": username}]}
        if client_id is not None:
            client["clientid"] = client_id
        if password is not None:
            client["password"] = password
        await self._do(
            [
                {"command": "createRole", "rolename": username},
                {"command": "modifyRole", "rolename": username, "acls": acls},
                {"command": "createClient", **client},
                {"command": "modifyClient", **client},
                {"command": "enableClient", "username": username},
            ],
            harmless=_THERE_ALREADY,
        )

    async def revoke(self, username: str) -> None:
        """Refuse the user from now on, and end its connections.

        Raises:
            TransientError, SetupError: as above; also an unknown user.
        """
        await self._do([{"command": "disableClient", "username": username}])

    async def remove(self, username: str) -> None:
        """Forget the user and end its connections; one that is not there is no error.

        Raises:
            TransientError, SetupError: as above.
        """
        await self._do(
            [
                {"command": "disableClient", "username": username},
                {"command": "deleteClient", "username": username},
                {"command": "deleteRole", "rolename": username},
            ],
            harmless=_GONE_ALREADY,
        )

    async def _do(self, commands: Sequence[_Command], *, harmless: frozenset[str] = frozenset()) -> None:
        token = secrets.token_hex(8)
        answer = self._waiting[token] = asyncio.get_running_loop().create_future()
        document = {"commands": [{**command, "correlationData": token} for command in commands]}
        try:
            async with asyncio.timeout(ANSWER_WITHIN_S):
                await self._bus.wait_connected()
                self._bus.publish(_COMMANDS, msgspec.json.encode(document))
                responses = await answer
        except TimeoutError:
            raise TransientError(
                f"mosquitto does not answer on {_ANSWERS}: {self._bus.last_error or 'no word'}; is the plugin loaded, "
                "and is the user its administrator?"
            ) from None
        finally:
            del self._waiting[token]
        for response in responses:
            if response.error and response.error not in harmless:
                raise SetupError(f"mosquitto refuses {response.command}: {response.error}")

    def _take(self, delivery: Delivery) -> None:
        responses = msgspec.json.decode(delivery.payload, type=_Responses).responses
        answer = self._waiting.get(responses[0].correlation_data) if responses else None
        if answer is not None and not answer.done():
            answer.set_result(responses)
