"""A real adapter with an encrypted meter: its key, and the one it signs with, are nowhere but at rest."""

import asyncio
import base64
import os
import sys
import zipfile
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from meterway.adapter.config import AdapterConfig, MeterConfig, SigningConfig, TcpSource
from meterway.adapter.service import run
from meterway.adapter.signing import key_path, open_signer
from meterway.cli.doctor import doctor
from meterway.cli.verify import verify
from meterway.core.config import dump_config
from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.core.signatures import Signer, key_text
from meterway.delivery.spool import Spool
from meterway.meter.dlms_security import seal
from meterway.meter.keys import Keys
from meterway.meter.virtual.encode_dlms import date_time, encode_hdlc, encode_notification, flat, structure, uint32
from meterway.secret_store import SecretStore
from support.adapter import METER, concentrating
from support.brokers import RunningBroker
from support.links import tcp_server

KEYS = Keys(bytes(range(0x40, 0x50)), bytes(range(0xA0, 0xB0)))
PASSWORD = b"Zaehler-Geheimnis-7"


def push(counter: int) -> bytes:
    """A push of an E450 in Austria."""
    values = flat([(Obis(1, 0, 1, 8, 0), uint32(12345678 + counter), None), (Obis(1, 0, 1, 7, 0), uint32(2718), None)])
    moment = datetime(2026, 6, 5, 12, counter // 60, counter % 60, tzinfo=UTC)
    apdu = encode_notification(counter, structure(*values), date_time(moment))
    return encode_hdlc(seal(apdu, title=b"LGZ\x67\x00\x00\x00\x2a", counter=counter, keys=KEYS), most_bytes=60)


@asynccontextmanager
async def pushing() -> AsyncIterator[TcpSource]:
    """A gateway that hands out a push ten times a second."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for counter in range(1, 3000):
            writer.write(push(counter))
            await writer.drain()
            await asyncio.sleep(0.1)

    async with tcp_server(serve) as port:
        yield TcpSource(host="127.0.0.1", port=port)


def spellings(secret: bytes) -> Iterator[bytes]:
    """In what ways a secret could have got out."""
    yield secret
    yield repr(secret).encode()
    yield secret.hex().encode()
    yield secret.hex().upper().encode()
    yield secret.hex(" ").encode()
    yield base64.b64encode(secret).rstrip(b"=")
    yield base64.urlsafe_b64encode(secret).rstrip(b"=")


def members(path: Path) -> Iterator[tuple[str, bytes]]:
    with zipfile.ZipFile(path) as bundle:
        for name in bundle.namelist():
            yield f"{path.name}/{name}", bundle.read(name)


async def test_keys_are_in_no_message_log_bundle_or_file_beside_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, nats: RunningBroker
) -> None:
    safe = tmp_path / "safe"
    monkeypatch.delenv("CREDENTIALS_DIRECTORY", raising=False)
    monkeypatch.delenv("METERWAY_SECRETS_KEY", raising=False)
    monkeypatch.setenv("METERWAY_SECRETS", str(safe / "secrets"))
    store = SecretStore.of(os.environ)
    assert KEYS.encryption is not None
    assert KEYS.authentication is not None
    store.set("e450", f"{KEYS.encryption.hex()}\n{KEYS.authentication.hex()}\n".encode())
    store.set("password", PASSWORD)
    log, bundle, path = tmp_path / "adapter.log", tmp_path / "help.zip", tmp_path / "adapter.toml"
    async with pushing() as source, concentrating(nats) as seen:
        meter = MeterConfig(
            id=METER,
            source=source,
            family="dlms-lg-e450-austria",
            key_file=Path("secret:e450"),
            password_file=Path("secret:password"),
        )
        signing = SigningConfig(enabled=True)
        config = AdapterConfig(
            id="test", broker=nats.config, spool_dir=tmp_path / "spool", meters=(meter,), signing=signing
        )
        path.write_text(dump_config(config))
        arguments = ("-m", "meterway", "adapter", "--config", str(path), "--verbose")
        with log.open("wb") as output:
            adapter = await asyncio.create_subprocess_exec(sys.executable, *arguments, stderr=output, stdout=output)
        try:
            await seen.until(lambda: len(seen.of("readings")) >= 3 and bool(seen.of("meter")))
            looked = await asyncio.to_thread(
                CliRunner().invoke, doctor, ["--config", str(path), "--bundle", str(bundle), "--json"]
            )
        finally:
            adapter.terminate()
            await adapter.wait()
    pem = (tmp_path / "spool-signing.key").read_bytes()
    assert (tmp_path / "spool-signing.key").stat().st_mode & 0o077 == 0
    signer = Signer.of_pem(pem)
    assert "secret e450 opens" in looked.output
    assert key_text(signer.public_key) in looked.output
    assert seen.of("meter")[0]["signingKey"] == key_text(signer.public_key)

    said = [*seen.messages, ("adapter.log", log.read_bytes()), ("doctor", looked.output.encode()), *members(bundle)]
    said += [
        (str(file), file.read_bytes())
        for file in tmp_path.rglob("*")
        if file.is_file() and file.name != "spool-signing.key"
    ]
    private = signer._private_key.private_bytes_raw()
    assert b"readings are signed" in log.read_bytes()
    for secret in (KEYS.encryption, KEYS.authentication, PASSWORD, private):
        for spelling in spellings(secret):
            assert [where for where, data in said if spelling in data] == []
    key = store.key_path
    assert [where for where, data in said if any(each in data for each in spellings(key.read_bytes()))] == [str(key)]

    capture = tmp_path / "capture"
    payloads = [payload for topic, payload in seen.messages if topic.endswith("/readings")]
    capture.write_bytes(b"\n".join(payloads))
    held = CliRunner().invoke(verify, [str(capture), "--key", key_text(signer.public_key)])
    assert held.exit_code == 0, held.output
    assert f"{METER}: {len(payloads)} readings hold; no number is missing" in held.output


async def test_an_adapter_keeps_its_signing_key_and_says_what_is_wrong_with_it(
    tmp_path: Path, nats: RunningBroker
) -> None:
    async def started(signing: SigningConfig) -> tuple[int | None, str]:
        """Start an adapter that ends when its input does not come; return how it ended and what it said."""
        meter = MeterConfig(id=METER, source=TcpSource(host="127.0.0.1", port=1), family="sml-generic")
        config = AdapterConfig(
            id="test", broker=nats.config, spool_dir=tmp_path / "spool", meters=(meter,), signing=signing
        )
        path = tmp_path / "adapter.toml"
        path.write_text(dump_config(config))
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "meterway", "adapter", "--config", str(path), "--json"),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        assert process.stdout is not None
        if b"ready" in await process.stdout.readline():
            process.terminate()
        _, said = await process.communicate()
        return process.returncode, said.decode()

    code, said = await started(SigningConfig(enabled=True))
    assert code == 0
    assert "a new signing key was made" in said
    key = tmp_path / "spool-signing.key"
    first = Signer.of_pem(key.read_bytes()).public_key
    code, said = await started(SigningConfig(enabled=True))
    assert f"readings are signed; the public key is {key_text(first)}" in said
    assert "a new signing key" not in said
    key.write_bytes(b"geheim")
    code, said = await started(SigningConfig(enabled=True))
    assert code == 2
    assert f"{key}: no private key in PEM; make one: openssl genpkey -algorithm ed25519" in said
    with pytest.raises(SetupError, match="nosuch: the signing key cannot be read: No such file or directory"):
        open_signer(SigningConfig(enabled=True, key_file=tmp_path / "nosuch"), tmp_path / "spool")


async def test_an_adapter_that_is_started_twice_makes_no_second_key(tmp_path: Path) -> None:
    """Else the first would sign with a key that is no longer in the file, and the cloud would not know the next."""
    meter = MeterConfig(id=METER, source=TcpSource(host="127.0.0.1", port=1), family="sml-generic")
    config = AdapterConfig(
        id="test", spool_dir=tmp_path / "spool", meters=(meter,), signing=SigningConfig(enabled=True)
    )
    async with Spool(config.spool_dir):
        with pytest.raises(SetupError, match="is in use by another process"):
            await run(config, ready=lambda: None)
    assert not key_path(config.spool_dir).exists()
