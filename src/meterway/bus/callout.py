"""Who may log in to the embedded broker, and what then: asked at each log-in, of a directory that may change.

nats-server asks on ``$SYS.REQ.USER.AUTH`` about every user that does not stand in its configuration. While nobody
answers, those log-ins are refused after five seconds, and clients try again; who is connected stays connected.

Every two seconds it looks at all connections: those of devices that are revoked or gone are ended, and of those that
publish more than they may. What a connection published since then counts when it ends, so that many short ones are no
way around that. A device that is cut off for a flood is let in again when its allowance has grown; what it had to say
waits in its spool, so nothing is lost. ``end`` looks at once.
"""

import asyncio
import hashlib
import hmac
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import msgspec
import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from meterway.bus.allowance import Allowance
from meterway.bus.directory import Device, Directory
from meterway.bus.nats_jwt import Issuer, read_claims
from meterway.bus.nats_users import SERVICE_USER, permissions
from meterway.bus.refusals import Refusal
from meterway.core.errors import BadDataError, TransientError
from meterway.core.grants import owns_client_id

_log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
LOOK_SHARE = 0.05
"""Looking takes at most this part of the time; with many thousands of connections it is done less often."""
ANSWER_WITHIN_S = 5.0

_REQUESTS = "$SYS.REQ.USER.AUTH"
_CONNECTIONS = "$SYS.REQ.SERVER.PING.CONNZ"
_PAGE = 1024
_DEVICES_ACCOUNT = "$G"
_DISCONNECTIONS = f"$SYS.ACCOUNT.{_DEVICES_ACCOUNT}.DISCONNECT"
_NO_DIGEST = bytes(32)


class LoginRequest(msgspec.Struct, frozen=True):
    """What a client says of itself, as nats-server passes it on."""

    class Server(msgspec.Struct, frozen=True):
        id: str

    class Client(msgspec.Struct, frozen=True):
        type: str = ""
        mqtt_id: str = ""

    class Options(msgspec.Struct, frozen=True):
        user: str = ""
        password: str = msgspec.field(name="pass", default="")

        def __repr__(self) -> str:
            return f"Options(user={self.user!r})"

    server_id: Server
    user_nkey: str
    client_info: Client
    connect_opts: Options


class _Request(msgspec.Struct, frozen=True):
    nats: LoginRequest


class _UserRights(msgspec.Struct, frozen=True):
    pub: dict[str, list[str]]
    sub: dict[str, list[str]]
    type: str = "user"
    version: int = 2
    subs: int = -1
    data: int = -1
    payload: int = -1
    allowed_connection_types: tuple[str, ...] = ("MQTT",)


class _User(msgspec.Struct, frozen=True):
    sub: str
    name: str
    nats: _UserRights
    aud: str = _DEVICES_ACCOUNT


class _Verdict(msgspec.Struct, frozen=True):
    jwt: str = ""
    error: str = ""
    type: str = "authorization_response"
    version: int = 2


class _Answer(msgspec.Struct, frozen=True):
    sub: str
    aud: str
    nats: _Verdict


class _Connection(msgspec.Struct, frozen=True):
    cid: int
    authorized_user: str = ""
    mqtt_client: str = ""
    in_msgs: int = 0
    in_bytes: int = 0


class _Connections(msgspec.Struct, frozen=True):
    connections: tuple[_Connection, ...] = ()


class _Disconnection(msgspec.Struct, frozen=True):
    class Client(msgspec.Struct, frozen=True):
        id: int
        user: str = ""
        client_id: str = ""

    class Amount(msgspec.Struct, frozen=True):
        msgs: int
        bytes: int

    client: Client
    sent: Amount
    """By the client."""


class _Server(msgspec.Struct, frozen=True):
    id: str


class _ConnectionsAnswer(msgspec.Struct, frozen=True):
    server: _Server
    data: _Connections = _Connections()


def _judge(request: LoginRequest, directory: Directory) -> Device | str:
    """Return the device that logs in, or as a sentence why it may not."""
    name = request.connect_opts.user
    device = directory.find(name)
    given = hashlib.sha256(request.connect_opts.password.encode()).digest()
    expected = device.secret_digest if device is not None else _NO_DIGEST
    if not hmac.compare_digest(given, expected) or device is None:
        return "User name or password is wrong."
    if device.revoked:
        return "The device is revoked."
    if request.client_info.type != "mqtt":
        return "Devices connect by MQTT only."
    if not owns_client_id(name, device.grant, request.client_info.mqtt_id):
        return f"The client id is not {name}, or {name}: and anything."
    return device


class Callout:
    """Answers nats-server, and watches connections, as long as the ``async with``."""

    def __init__(
        self,
        directory: Directory,
        issuer: Issuer,
        *,
        port: int,
        password: str,
        static_users: Sequence[str],
        on_refusal: Callable[[Refusal], object],
    ) -> None:
        self._directory = directory
        self._issuer = issuer
        self._url = f"nats://127.0.0.1:{port}"
        self._password = password
        self._static = frozenset((SERVICE_USER, *static_users, ""))
        self._on_refusal = on_refusal
        self._nats = Client()
        self._task: asyncio.Task[None] | None = None
        self._leaving = asyncio.Event()
        self._allowance = Allowance()
        self._seen: dict[int, tuple[int, int]] = {}
        self._connections: Counter[str] = Counter()

    async def __aenter__(self) -> Self:
        """Connect and begin to answer.

        Raises:
            TransientError: nats-server is not there.
        """
        try:
            self._nats = await nats.connect(
                self._url,
                user=SERVICE_USER,
                password=self._password,
                name="meterway",
                error_cb=_note,
                reconnect_time_wait=0.2,
                max_reconnect_attempts=-1,
                connect_timeout=ANSWER_WITHIN_S,
            )
            await self._nats.subscribe(_REQUESTS, cb=self._answer)
            await self._nats.subscribe(_DISCONNECTIONS, cb=self._settle)
            await self._nats.flush()
        except (OSError, NatsError) as error:
            raise TransientError(f"nats-server at {self._url} cannot be reached: {error}") from error
        self._leaving.clear()
        self._task = asyncio.create_task(self._watch(), name="meterway.bus.callout")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leaving.set()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        await self._nats.close()

    @property
    def users(self) -> list[str]:
        """The devices that are connected, as far as was looked."""
        return [username for username, count in self._connections.items() if count > 0]

    async def end(self, username: str) -> None:
        """End all connections of a user now: it was revoked, or may do other things after its next log-in.

        Raises:
            TransientError: nats-server does not answer. Revoked devices are then found two seconds after it does.
        """
        for server_id, connection in [each async for each in self._list(username)]:
            await self._kick(server_id, connection)

    async def _answer(self, message: Msg) -> None:
        try:
            request = read_claims(message.data, _Request).nats
        except BadDataError as error:
            _log.warning("! nats-server asks who may log in, and cannot be understood: %s", error)
            return
        verdict = await self._verdict(request)
        answer = _Answer(sub=request.user_nkey, aud=request.server_id.id, nats=verdict)
        await message.respond(self._issuer.sign(answer, now_s=int(time.time())).encode())

    async def _verdict(self, request: LoginRequest) -> _Verdict:
        name = request.connect_opts.user
        device = _judge(request, self._directory)
        if isinstance(device, Device):
            device = await self._admit(device)
        if isinstance(device, str):
            refusal = Refusal(kind="login", username=name, client_id=request.client_info.mqtt_id, detail=device)
            self._on_refusal(refusal)
            return _Verdict(error=device)
        self._connections[name] += 1
        publish, subscribe = permissions(device.grant)
        user = _User(sub=request.user_nkey, name=name, nats=_UserRights(pub=publish, sub=subscribe))
        return _Verdict(jwt=self._issuer.sign(user, now_s=int(time.time())))

    async def _admit(self, device: Device) -> Device | str:
        """Return the device, or as a sentence why it has to wait."""
        grant, name = device.grant, device.username
        if (limit := grant.limit_connections) is not None and self._connections[name] >= limit:
            await self._count_again(name)
            if self._connections[name] >= limit:
                return f"The device has {limit} connections already."
        if grant.limit_messages_per_s is not None:
            wait_s = self._allowance.wait_s(name, grant.limit_messages_per_s, time.monotonic())
            if wait_s:
                return "The device published too much, and has to wait."
        return device

    async def _count_again(self, name: str) -> None:
        """Look how many connections a user has: some may have ended since."""
        with suppress(TransientError):
            self._connections[name] = len([each async for each in self._list(name)])

    async def _watch(self) -> None:
        while not self._leaving.is_set():  # a cancellation alone can be lost in ``wait_for``, which nats-py uses
            began_s = time.monotonic()
            try:
                await self._look()
            except TransientError as error:
                _log.warning("! %s; connections are not watched meanwhile", error)
            with suppress(TimeoutError):
                async with asyncio.timeout(max(LOOK_EVERY_S, (time.monotonic() - began_s) / LOOK_SHARE)):
                    await self._leaving.wait()

    async def _look(self) -> None:
        """Look at all connections, and end those that must not be."""
        seen: dict[int, tuple[int, int]] = {}
        connections: Counter[str] = Counter()
        spent: dict[str, list[int]] = {}
        found: dict[str, list[tuple[str, _Connection]]] = {}
        async for server_id, each in self._list():
            name = each.authorized_user
            if name in self._static:
                continue
            seen[each.cid] = (each.in_msgs, each.in_bytes)
            connections[name] += 1
            found.setdefault(name, []).append((server_id, each))
            before = self._seen.get(each.cid, (0, 0))
            spending = spent.setdefault(name, [0, 0])
            spending[0] += each.in_msgs - before[0]
            spending[1] += each.in_bytes - before[1]
        self._seen, self._connections = seen, connections
        for name, (messages, size_bytes) in spent.items():
            if not self._may_stay(name, messages, size_bytes, found[name][0][1].mqtt_client):
                for server_id, each in found[name]:
                    await self._kick(server_id, each)

    async def _settle(self, message: Msg) -> None:
        """Count what a connection that has ended published since it was looked at."""
        ended = msgspec.json.decode(message.data, type=_Disconnection)
        name = ended.client.user
        if name not in self._static:
            messages, size_bytes = self._seen.pop(ended.client.id, (0, 0))
            self._may_stay(name, ended.sent.msgs - messages, ended.sent.bytes - size_bytes, ended.client.client_id)

    def _may_stay(self, name: str, messages: int, size_bytes: int, client_id: str) -> bool:
        device = self._directory.find(name)
        if device is None or device.revoked:
            return False
        per_s = device.grant.limit_messages_per_s
        if per_s is None or self._allowance.spend(name, per_s, messages, size_bytes, time.monotonic()):
            return True
        detail = f"The device published more than {per_s:.0f} messages a second in the long run."
        self._on_refusal(Refusal(kind="flood", username=name, client_id=client_id, detail=detail))
        return False

    async def _list(self, username: str | None = None) -> AsyncIterator[tuple[str, _Connection]]:
        """Yield the connections, of one user or of all, each with the server that has it.

        Raises:
            TransientError: nats-server does not answer.
        """
        offset = 0
        while True:
            query: dict[str, object] = {"auth": True, "limit": _PAGE, "offset": offset}
            if username is not None:
                query["user"] = username
            answer = msgspec.json.decode(await self._ask(_CONNECTIONS, query), type=_ConnectionsAnswer)
            for connection in answer.data.connections:
                yield answer.server.id, connection
            offset += _PAGE
            if len(answer.data.connections) < _PAGE:
                return

    async def _kick(self, server_id: str, connection: _Connection) -> None:
        _log.info("ends connection %r of %s", connection.mqtt_client, connection.authorized_user)
        await self._ask(f"$SYS.REQ.SERVER.{server_id}.KICK", {"cid": connection.cid})
        self._connections[connection.authorized_user] -= 1

    async def _ask(self, subject: str, query: dict[str, object]) -> bytes:
        try:
            answer = await self._nats.request(subject, msgspec.json.encode(query), timeout=ANSWER_WITHIN_S)
        except (OSError, NatsError, TimeoutError) as error:
            raise TransientError(f"nats-server does not answer: {str(error) or type(error).__name__}") from error
        return answer.data


async def _note(error: Exception) -> None:
    _log.warning("! authorisation service: %s", str(error) or type(error).__name__)
