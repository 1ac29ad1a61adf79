"""A peer, as it is often written: ``python peer_paho.py PORT DSN_FILE``.

paho-mqtt acknowledges by itself; a batch goes to PostgreSQL twice a second and is tried again until it is stored.
"""

import asyncio
import contextlib
import json
import sys
from pathlib import Path

import asyncpg
from paho.mqtt.client import Client, MQTTMessage
from paho.mqtt.enums import CallbackAPIVersion

TABLE = "create table if not exists peer (number bigint primary key, payload text)"
_INSERT = "insert into peer values ($1, $2) on conflict do nothing"
_EVERY_S = 0.5


async def main(port: int, dsn: str) -> None:
    loop, waiting = asyncio.get_running_loop(), list[tuple[int, str]]()

    def take(_client: Client, _data: object, message: MQTTMessage) -> None:
        text = message.payload.decode()
        loop.call_soon_threadsafe(waiting.append, (json.loads(text)["number"], text))

    client = Client(CallbackAPIVersion.VERSION2, client_id="peer-paho", clean_session=False)
    client.on_message = take
    client.on_connect = lambda client, *_: client.subscribe("#", qos=1)
    client.connect("127.0.0.1", port)
    client.loop_start()
    print(json.dumps({"ready": True}), flush=True)
    while True:
        await asyncio.sleep(_EVERY_S)
        batch = waiting[:]
        with contextlib.suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            connection = await asyncpg.connect(dsn, timeout=5)
            try:
                await connection.executemany(_INSERT, batch)
                del waiting[: len(batch)]
            finally:
                connection.terminate()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), Path(sys.argv[2]).read_text()))
