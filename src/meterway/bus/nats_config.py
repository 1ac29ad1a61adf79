"""The configuration of nats-server as the embedded broker runs it: MQTT with TLS, JetStream on the disk, log-ins."""

from collections.abc import Sequence
from pathlib import Path

import msgspec

from meterway.bus.nats_users import CalloutUser, StaticUser, authorization

ACK_WAIT_S = 10.0
"""After this NATS delivers again what was not acknowledged; a commit takes milliseconds."""

MAX_ACK_PENDING = 4096
"""How much one subscription may have unacknowledged. All subscriptions of a session share 65,535 packet identifiers
and NATS refuses one too many: a session may have 15 filters, where one that ends in ``#`` counts twice."""

LIMIT_STORE_BYTES = 8 << 30
"""The most that is kept on disk; beyond it the broker acknowledges nothing more and the senders' spools fill."""

HANDSHAKE_WITHIN_S = 10.0
"""How long a client may take for TLS; the default of NATS, 2 s, is short for a device on a mobile link."""


def nats_config(
    *,
    host: str = "127.0.0.1",
    port: int,
    certificate: Path | None = None,
    store_dir: Path,
    ack_wait_s: float = ACK_WAIT_S,
    store_limit_bytes: int = LIMIT_STORE_BYTES,
    sync_always: bool = False,
    service_port: int = -1,
    users: Sequence[StaticUser] = (),
    callout: CalloutUser | None = None,
) -> str:
    """Return a configuration of nats-server; without ``users`` anybody on this machine may do everything.

    ``service_port`` is for NATS' own protocol, on loopback only; -1: any.
    """
    return f"""\
server_name: meterway
listen: "127.0.0.1:{service_port}"
max_payload: 2MB  # ours is 1 MiB of payload; NATS counts headers of its own to it
jetstream {{
    store_dir: {_quoted(store_dir)}
    max_file_store: {store_limit_bytes}
    sync_interval: {"always" if sync_always else '"2m"'}
}}
mqtt {{
    host: {_quoted(host)}
    port: {port}
    {_tls(certificate) if certificate else ""}
    ack_wait: "{round(ack_wait_s * 1000)}ms"
    max_ack_pending: {MAX_ACK_PENDING}
}}
{authorization(users, callout) if users else ""}
"""


def _tls(certificate: Path) -> str:
    file = _quoted(certificate)
    return f"tls {{ cert_file: {file}, key_file: {file}, timeout: {HANDSHAKE_WITHIN_S} }}"


def _quoted(value: str | Path) -> str:
    return msgspec.json.encode(str(value)).decode()
