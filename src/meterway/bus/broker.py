"""The embedded broker."""

from pathlib import Path


def nats_config(*, port: int, store_dir: Path, ack_wait_s: float = 10.0, sync_always: bool = False) -> str:
    return f"""
server_name: meterway
listen: "127.0.0.1:-1"
max_payload: 2MB
jetstream {{ store_dir: "{store_dir}", sync_interval: "{"always" if sync_always else "2m"}" }}
mqtt {{ host: "127.0.0.1", port: {port}, ack_wait: "{ack_wait_s}s", max_ack_pending: 4096 }}
"""
