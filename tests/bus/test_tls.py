"""TLS towards brokers: who is trusted, and what is said when the two do not come together."""

import asyncio
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from meterway.adapter.doctor.broker import look_at_broker
from meterway.authority import Authority
from meterway.bus.broker import EmbeddedBroker
from meterway.bus.bus import BrokerConfig, Delivery, EmbeddedBrokerConfig
from meterway.bus.mqtt import MqttBus, answers, broker_address
from meterway.bus.tls import client_context
from meterway.core.config import load_config
from meterway.core.errors import SetupError
from support.brokers import RunningBroker, free_port, running_mosquitto, running_nats

IN_TIME_S = 60.0
LIFE_GONE = timedelta(days=100)


def now() -> datetime:
    return datetime.now(UTC)


class Served(NamedTuple):
    """A broker with TLS, and the authority that signs for it."""

    broker: RunningBroker
    authority: Authority
    certificate: Path

    def config(self, *, host: str = "127.0.0.1", ca_file: Path | None = None) -> BrokerConfig:
        return BrokerConfig(url=f"mqtts://{host}:{self.broker.port}", ca_file=ca_file or self.authority.ca_file)


@pytest.fixture(params=[running_nats, running_mosquitto], ids=["nats", "mosquitto"], scope="module")
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    folder = tmp_path_factory.mktemp("tls")
    authority = Authority.open(folder / "certificates", clock=now)
    certificate = authority.server_certificate("broker", ["127.0.0.1", "meters.example.org"]).file
    with request.param(folder / "broker", certificate=certificate) as broker:
        yield Served(broker, authority, certificate)


async def trouble(config: BrokerConfig) -> str:
    """Return why a bus cannot connect."""
    async with MqttBus(config, "reader") as bus, asyncio.timeout(IN_TIME_S):
        while bus.last_error is None:
            await asyncio.sleep(0.02)
        assert not bus.connected
        return bus.last_error


async def code(config: BrokerConfig) -> str:
    """Return what the doctor calls it."""
    seen = await look_at_broker(config, watch_s=0)
    assert [check.ok for check in seen.checks] == [False]
    assert seen.checks[0].fix
    return str(seen.checks[0].code)


async def test_messages_pass_both_ways(served: Served) -> None:
    arrived: list[bytes] = []
    all_here = asyncio.Event()

    def take(delivery: Delivery) -> None:
        arrived.append(delivery.payload)
        delivery.ack()
        if len(arrived) == 300:
            all_here.set()

    payloads = [bytes([index % 256]) * (index * 97) for index in range(300)]
    async with MqttBus(served.config(), "both", {"concentrator/a/#": take}) as bus, asyncio.timeout(IN_TIME_S):
        await bus.wait_connected()
        for payload in payloads:
            bus.publish("concentrator/a/x", payload)
        await all_here.wait()
    assert arrived == payloads


async def test_another_authority_is_not_trusted(served: Served, tmp_path: Path) -> None:
    stranger = Authority.open(tmp_path, clock=now)
    said = await trouble(served.config(ca_file=stranger.ca_file))
    assert "of an authority that is not trusted here" in said
    assert "name that authority's certificate in ca_file" in said
    public = BrokerConfig(url=served.config().url)
    assert "not trusted here" in await trouble(public)
    assert await code(public) == "broker-certificate"


async def test_another_name_is_not_trusted(served: Served) -> None:
    said = await trouble(served.config(host="localhost"))
    assert "shows a certificate that is not for localhost; use a name that stands in it" in said
    assert await code(served.config(host="localhost")) == "broker-certificate"


async def test_without_tls_at_a_port_with_tls(served: Served) -> None:
    plain = BrokerConfig(url=served.broker.url)
    assert "speaks TLS on this port; write mqtts:// instead of mqtt://" in await trouble(plain)
    assert await code(plain) == "broker-tls"


async def test_with_tls_at_a_port_without(broker: RunningBroker, tmp_path: Path) -> None:
    ca_file = Authority.open(tmp_path / "certificates", clock=now).ca_file
    config = BrokerConfig(url=f"mqtts://127.0.0.1:{broker.port}", ca_file=ca_file)
    assert "does not speak TLS on this port; name its port with TLS" in await trouble(config)
    assert await code(config) == "broker-tls"


@pytest.mark.parametrize(
    ("made", "sentence"),
    [
        (lambda: now() - LIFE_GONE, "has expired; renew it there"),
        (lambda: now() + LIFE_GONE, "is not valid yet; set this machine's clock"),
    ],
    ids=["expired", "not yet"],
)
async def test_a_certificate_out_of_its_time(made: Callable[[], datetime], sentence: str, tmp_path: Path) -> None:
    Authority.open(tmp_path / "ca", clock=lambda: now() - LIFE_GONE)
    authority = Authority.open(tmp_path / "ca", clock=made)
    certificate = authority.server_certificate("broker", ["127.0.0.1"]).file
    with running_mosquitto(tmp_path / "broker", certificate=certificate) as broker:
        served = Served(broker, authority, certificate)
        assert sentence in await trouble(served.config())
        assert await code(served.config()) == "broker-certificate"


async def test_a_certificate_of_the_client_is_shown_where_the_broker_asks_for_one(tmp_path: Path) -> None:
    authority = Authority.open(tmp_path / "certificates", clock=now)
    certificate = authority.server_certificate("broker", ["127.0.0.1"]).file
    mine, key = tmp_path / "mine.pem", tmp_path / "mine.key"
    options = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", "/CN=adapter"]
    subprocess.run(["openssl", "req", "-x509", *options, "-keyout", key, "-out", mine], check=True, capture_output=True)
    wants = f"cafile {mine}\nrequire_certificate true"
    with running_mosquitto(tmp_path / "broker", certificate=certificate, extra=wants) as broker:
        config = Served(broker, authority, certificate).config()
        assert "if it wants a certificate of this client, name certificate_file" in await trouble(config)
        assert await answers(replace(config, certificate_file=mine, key_file=key))


def test_what_is_named_and_cannot_be_used_is_said(tmp_path: Path) -> None:
    url = "mqtts://broker"
    (tmp_path / "text").write_text("no PEM")
    authority = Authority.open(tmp_path / "a", clock=now)
    one = authority.server_certificate("one", ["a"]).file
    for config, sentence in (
        (BrokerConfig(url=url, ca_file=tmp_path / "none"), "needs ca_file .*none, which cannot be read: No such file"),
        (BrokerConfig(url=url, ca_file=tmp_path / "text"), "ca_file .*text, which holds nothing of the kind in PEM"),
        (BrokerConfig(url=url, certificate_file=tmp_path / "none"), "needs certificate_file .*none: cannot be read"),
        (
            BrokerConfig(url=url, certificate_file=one, key_file=tmp_path / "a" / "ca.key"),
            "key does not belong to the certificate",
        ),
    ):
        with pytest.raises(SetupError, match=sentence):
            client_context(config)
    assert client_context(BrokerConfig(url=url, certificate_file=one)).check_hostname


@pytest.mark.parametrize(
    "host", ["192.0.2.7", "broker.example.org", "0.0.0.0", "[2001:db8::7]", "127.0.0.1.example.org"]
)
def test_without_tls_to_another_machine_is_refused_unless_switched_on_by_name(host: str) -> None:
    with pytest.raises(SetupError, match=r"another machine without TLS: write mqtts://.*or say plaintext = true"):
        broker_address(BrokerConfig(url=f"mqtt://{host}"))
    assert broker_address(BrokerConfig(url=f"mqtt://{host}", plaintext=True))[0] == host.strip("[]")
    assert broker_address(BrokerConfig(url=f"mqtts://{host}"))


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ('url = "mqtt://127.0.0.1"\nca_file = "/x"', "ca_file and certificate_file are for TLS: write mqtts:// in url"),
        ('url = "mqtts://h"\nkey_file = "/x"', "key_file stands without certificate_file"),
    ],
)
def test_a_mistake_in_the_configuration_is_said(text: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        load_config(text, BrokerConfig, where="adapter.toml")


async def test_the_embedded_broker_speaks_tls_beyond_loopback(tmp_path: Path) -> None:
    async with EmbeddedBroker(tmp_path, host="0.0.0.0", names=["meters.example.org"]) as broker:
        config = broker.config()
        assert config.url == f"mqtts://127.0.0.1:{broker.port}"
        assert config.ca_file == tmp_path / "certificates" / "ca.pem"
        assert await answers(config)
        plain = BrokerConfig(
            url=f"mqtt://127.0.0.1:{broker.port}", username="meterway", password_file=config.password_file
        )
        assert not await answers(plain)
        assert broker.certificate is not None
        assert broker.certificate.file == tmp_path / "certificates" / "broker.pem"
    async with EmbeddedBroker(tmp_path) as again:
        assert again.config().url == f"mqtt://127.0.0.1:{again.port}"
        assert again.certificate is None


async def test_the_embedded_broker_takes_up_a_renewed_certificate_and_keeps_its_connections(tmp_path: Path) -> None:
    days = 0
    arrived: list[bytes] = []

    def clock() -> datetime:
        return now() - timedelta(days=70) + timedelta(days=days)

    async with asyncio.timeout(IN_TIME_S):
        async with EmbeddedBroker(tmp_path, host="0.0.0.0", names=["h"], clock=clock, look_every_s=0.05) as broker:
            assert broker.certificate is not None
            shown, expires = await shown_certificate(broker.config()), broker.certificate.expires

            def take(delivery: Delivery) -> None:
                arrived.append(delivery.payload)
                delivery.ack()

            async with MqttBus(broker.config(), "stays", {"concentrator/#": take}) as bus:
                await bus.wait_connected()
                days, sent = 65, 0
                while await shown_certificate(broker.config()) == shown:
                    bus.publish("concentrator/a", b"%d" % sent)
                    sent += 1
                bus.publish("concentrator/a", b"end")
                while b"end" not in arrived:
                    await asyncio.sleep(0.02)
                assert {int(payload) for payload in arrived if payload != b"end"} == set(range(sent))
                assert bus.connections == 1
            assert broker.certificate.expires > expires
            assert broker.restarts == 0


async def shown_certificate(config: BrokerConfig) -> bytes:
    host, port = broker_address(config)
    _, writer = await asyncio.open_connection(host, port, ssl=client_context(config))
    try:
        certificate = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
    finally:
        writer.transport.abort()
    assert isinstance(certificate, bytes)
    return certificate


def test_an_embedded_broker_for_others_has_a_name() -> None:
    with pytest.raises(SetupError, match=r"names is empty.*say how other machines call this one"):
        load_config('data_dir = "/x"\nhost = "0.0.0.0"', EmbeddedBrokerConfig, where="edge.toml")
    assert load_config('data_dir = "/x"\nhost = "192.0.2.7"', EmbeddedBrokerConfig, where="edge.toml").names == ()


async def test_an_embedded_broker_whose_authority_is_not_whole_does_not_start(tmp_path: Path) -> None:
    (tmp_path / "certificates").mkdir()
    (tmp_path / "certificates" / "ca.pem").write_text("x")
    with pytest.raises(SetupError, match=r"ca.key is gone: put it back from a backup"):
        async with EmbeddedBroker(tmp_path, host="0.0.0.0", names=["h"], port=free_port()):
            pass
