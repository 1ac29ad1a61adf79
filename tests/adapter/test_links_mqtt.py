import asyncio
from pathlib import Path

import pytest

from meterway.adapter.config import MqttSource
from meterway.adapter.links import open_link
from meterway.adapter.links.mailbox import LIMIT_BYTES, LIMIT_MESSAGES, Mailbox
from meterway.adapter.links.mqtt import envelope
from meterway.bus.bus import BrokerConfig
from meterway.core.config import convert_config
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line
from support.brokers import RunningBroker, free_port
from support.links import IN_TIME_S, Readable
from support.platform import MqttClient


async def publish(broker: RunningBroker, *messages: tuple[str, bytes], retain: bool = False) -> None:
    def run() -> None:
        with MqttClient(broker.config) as client:
            for topic, payload in messages:
                client.publish(topic, payload, retain=retain)

    await asyncio.to_thread(run)


async def messages(link: Readable, count: int) -> list[bytes]:
    async with asyncio.timeout(IN_TIME_S):
        return [await link.read() for _ in range(count)]


async def test_each_payload_is_one_message_whatever_its_bytes(broker: RunningBroker) -> None:
    sent = [b"\x1b\x1b\x1b\x1b" + bytes(range(256)), b"/a telegram!\r\n", b"\x00"]
    async with open_link(MqttSource(topic="bridge/telegram"), Line(), broker.config) as link:
        assert link.message_bounded
        await publish(broker, *(("bridge/telegram", each) for each in (sent[0], b"", *sent[1:])))
        assert await messages(link, 3) == sent


async def test_a_source_may_name_a_broker_of_its_own(mosquitto: RunningBroker) -> None:
    elsewhere = BrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}")
    async with open_link(MqttSource(topic="a/b", broker=mosquitto.config), Line(), elsewhere) as link:
        await publish(mosquitto, ("a/b", b"here"))
        assert await messages(link, 1) == [b"here"]


async def test_behind_a_filter_each_message_says_its_topic(broker: RunningBroker) -> None:
    async with open_link(MqttSource(topic="tele/+/SENSOR"), Line(), broker.config) as link:
        await publish(
            broker, ("tele/a/SENSOR", b'{"E": 12345.6780}'), ("tele/b/SENSOR", b"off"), ("tele/b/STATE", b"{}")
        )
        assert await messages(link, 2) == [
            b'{"topic":"tele/a/SENSOR","payload":{"E":12345.6780}}\n',
            b'{"topic":"tele/b/SENSOR","payload":"off"}\n',
        ]


@pytest.mark.parametrize(
    ("payload", "content"),
    [
        (b'{\n  "a" : [1.50, "\xc3\xa4"]\n}', '{"a":[1.50,"ä"]}'),
        (b"0.1", "0.1"),
        (b"nan", '"nan"'),
        (b"", '""'),
        (b'{"a":1}{', '"{\\"a\\":1}{"'),
        (b"\x1b\xff", '"\\u001b\ufffd"'),
        (b"[" * 100_000, '"' + "[" * 100_000 + '"'),
    ],
    ids=["object", "number", "word", "nothing", "two", "binary", "deep"],
)
def test_the_envelope_holds_json_as_it_is_and_anything_else_as_a_string(payload: bytes, content: str) -> None:
    assert envelope("a/ä", payload).decode() == f'{{"topic":"a/ä","payload":{content}}}\n'


async def test_what_the_broker_has_retained_is_of_an_unknown_age_and_left_out(broker: RunningBroker) -> None:
    await publish(broker, ("meter/1", b"of yesterday"), retain=True)
    async with open_link(MqttSource(topic="meter/1"), Line(), broker.config) as link:
        await publish(broker, ("meter/1", b"of now"))
        assert await messages(link, 1) == [b"of now"]
    async with open_link(MqttSource(topic="meter/1", retained=True), Line(), broker.config) as link:
        assert await messages(link, 1) == [b"of yesterday"]


async def test_a_broker_that_is_away_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meterway.adapter.links.mqtt.CONNECT_TIMEOUT_S", 0.5)
    away = BrokerConfig(url=f"mqtt://127.0.0.1:{free_port()}")
    with pytest.raises(
        TransientError, match=rf"mqtt topic a/b cannot be read: broker {away.url[7:]} cannot be reached"
    ):
        async with open_link(MqttSource(topic="a/b"), Line(), away):
            pass


async def test_a_password_that_cannot_be_read_is_said_without_delay_for_the_meter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mosquitto: RunningBroker
) -> None:
    monkeypatch.setattr("meterway.adapter.links.mqtt.CONNECT_TIMEOUT_S", 0.5)
    broker = BrokerConfig(url=mosquitto.url, username="me", password_file=tmp_path / "none")
    with pytest.raises(TransientError, match="none, which cannot be read"):
        async with open_link(MqttSource(topic="a/b", broker=broker), Line()):
            pass


async def test_a_broker_that_goes_away_ends_the_link_once_all_is_read(
    mosquitto: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("meterway.adapter.links.mqtt.LOST_AFTER_S", 1.0)
    async with open_link(MqttSource(topic="a/b"), Line(), mosquitto.config) as link:
        await publish(mosquitto, ("a/b", b"the last"))
        assert await messages(link, 1) == [b"the last"]
        mosquitto.kill()
        with pytest.raises(TransientError, match=r"mqtt topic a/b cannot be read: broker .* cannot be reached"):
            await messages(link, 1)


async def test_a_broker_that_comes_back_in_time_is_read_on(mosquitto: RunningBroker) -> None:
    async with open_link(MqttSource(topic="a/b"), Line(), mosquitto.config) as link:
        mosquitto.restart()

        reading = asyncio.create_task(messages(link, 1))
        while not reading.done():
            await publish(mosquitto, ("a/b", b"again"))
        assert await reading == [b"again"]


@pytest.mark.parametrize(
    ("sent", "kept"),
    [
        ([f"{number}".encode() for number in range(LIMIT_MESSAGES + 7)], LIMIT_MESSAGES),
        ([bytes((number,)) * (1 << 20) for number in range(1, 8)], LIMIT_BYTES >> 20),
    ],
    ids=["messages", "bytes"],
)
async def test_messages_that_nobody_reads_are_bounded_and_the_newest_stay(
    sent: list[bytes], kept: int, caplog: pytest.LogCaptureFixture
) -> None:
    mailbox = Mailbox("mqtt topic a/b")
    for message in sent:
        mailbox.put(message)
    assert mailbox.dropped == len(sent) - kept
    assert await messages(mailbox, kept) == sent[-kept:]
    assert f"mqtt topic a/b: messages come faster than they are read; {mailbox.dropped} dropped" in caplog.text


@pytest.mark.parametrize(
    ("topic", "sentence"),
    [
        ("#", 'topic "#" would take what Meterway itself publishes; begin it with a name'),
        ("+/readings", 'topic "\\+/readings" would take what Meterway itself publishes'),
        ("smartMeterMessage/x/readings", "what Meterway itself publishes below smartMeterMessage/ is no source"),
        ("concentrator/#", "what Meterway itself publishes below concentrator/ is no source"),
        ("receipt/x", "what Meterway itself publishes below receipt/ is no source"),
        ("tele/#/x", r"\+ stands for one whole level, # for all that follow, at the end"),
        ("tele/a+/x", r"\+ stands for one whole level"),
        ("a b", "cannot be published"),
        ("", "not 1 to 1024 bytes"),
    ],
)
def test_a_topic_that_would_loop_or_that_no_broker_takes_is_refused(topic: str, sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence):
        convert_config({"type": "mqtt", "topic": topic}, MqttSource, where="adapter.toml")
