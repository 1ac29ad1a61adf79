"""What a device may do on a broker, tried by an attacker who has the credentials of another device."""

import os
import signal
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from bus.permits import Client, NatsSite, Site, Witness, described, running_site, until
from meterway.bus.callout import LoginRequest
from meterway.bus.mqtt import MqttBus, Will
from meterway.bus.session import RefusedError
from meterway.core.errors import TransientError
from meterway.core.grants import OBSERVER, adapter_grant, concentrator_grant

MINE = adapter_grant(["mine"])
THEIRS = adapter_grant(["theirs"])


@pytest.fixture(params=["nats", "mosquitto"])
async def site(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Site]:
    async with running_site(str(request.param), tmp_path / "site") as running:
        yield running


@pytest.fixture
async def nats_site(tmp_path: Path) -> AsyncIterator[NatsSite]:
    async with running_site("nats", tmp_path / "site") as running:
        assert isinstance(running, NatsSite)
        yield running


async def test_device_does_all_that_is_its_own(site: Site) -> None:
    config = await site.put("adapter-1", MINE)
    will = Will("smartMeterMessage/mine/status", b"offline")
    async with Witness(site.cloud) as witness, Client(config, will=will) as device:
        await device.subscribe("receipt/mine", qos=0)
        await device.publish("smartMeterMessage/mine/readings", b"reading")
        await device.publish("smartMeterMessage/mine/status", b"online", retain=True)
        await witness.wait_for("smartMeterMessage/mine/readings", b"reading")
        async with Client(site.cloud) as cloud:
            await cloud.publish("receipt/mine", b"receipt")
        await until(lambda: ("receipt/mine", b"receipt") in device.got)
        device.die()
        await witness.wait_for("smartMeterMessage/mine/status", b"offline")


async def test_concentrator_does_all_that_is_its_own(site: Site) -> None:
    config = await site.put("c1", concentrator_grant("c1"))
    topic = "concentrator/c1/smartMeterMessage/mine/readings"
    async with Witness(site.cloud) as witness, Client(config) as device:
        await device.subscribe("receipt/c1", qos=0)
        await device.publish("concentrator/c2/smartMeterMessage/mine/readings", b"forged")
        await device.publish("smartMeterMessage/mine/readings", b"forged")
        await device.publish(topic, b"reading")
        await witness.wait_for(topic, b"reading")
        assert (await said(site, witness)) == [(topic, b"reading")]


async def said(site: Site, witness: Witness) -> list[tuple[str, bytes]]:
    """Return what was seen, once everything published before has come."""
    last = ("receipt/last", f"{len(witness.seen)}".encode())
    async with Client(site.cloud) as cloud:
        await cloud.publish(*last)
    await witness.wait_for(*last)
    return [each for each in witness.seen if each[0] != "receipt/last"]


async def test_forging_another_meter_reaches_nobody(site: Site) -> None:
    """By publish, retained or not, and by last will; MQTT 3.1.1 acknowledges it all the same."""
    config = await site.put("adapter-1", MINE)
    for topic in (
        "smartMeterMessage/theirs/readings",
        "smartMeterMessage/theirs/status",
        "concentrator/c1/smartMeterMessage/theirs/readings",
        "receipt/theirs",
        "receipt/mine",
        "smartMeterMessage",
        "/smartMeterMessage/theirs/readings",
        "smartMeterMessage//theirs/readings",
        "smartMeterMessage/mine.theirs/readings",
        "$SYS/x",
        "$MQTT/x",
        "$JS/API/STREAM/LIST",
        "$CONTROL/dynamic-security/v1",
    ):
        async with Client(config) as attacker:
            await attacker.publish(topic, b"forged")
            await attacker.publish(topic, b"forged", retain=True)
    async with Witness(site.cloud) as witness:
        for topic in ("smartMeterMessage/theirs/status", "concentrator/c1/status"):
            try:
                async with Client(config, will=Will(topic, b"forged")) as attacker:
                    attacker.die()
            except RefusedError:
                pass  # a broker may refuse such a will at once
        assert await said(site, witness) == []
    async with Witness(site.cloud) as late:
        assert await said(site, late) == []


@pytest.mark.parametrize("kind", ["nats", "mosquitto"])
async def test_reading_what_is_anothers_is_refused(kind: str, tmp_path: Path) -> None:
    async with running_site(kind, tmp_path / "site") as site:
        await site.put("adapter-2", THEIRS)
        async with Client(await site.put("adapter-1", MINE)) as attacker, Client(site.cloud) as cloud:
            for topic_filter in (
                "#",
                "+",
                "+/+",
                "+/mine",
                "+/theirs",
                "receipt/#",
                "receipt/+",
                "receipt/theirs",
                "receipt/mine/#",
                "smartMeterMessage/#",
                "smartMeterMessage/mine/readings",
                "concentrator/#",
                "$SYS/#",
                "$MQTT/#",
                "$MQTT/sub/#",
                "$MQTT/sub/+",
                "$JS/#",
                "$CONTROL/#",
                "$share/group/receipt/theirs",
            ):
                for qos in (0, 1):
                    with pytest.raises(RefusedError):
                        await attacker.subscribe(topic_filter, qos)
            await attacker.subscribe("receipt/mine")
            await cloud.publish("receipt/theirs", b"secret")
            await cloud.publish("receipt/mine", b"last")
            await until(lambda: bool(attacker.got))
            assert attacker.got == [("receipt/mine", b"last")]


async def test_session_of_another_cannot_be_taken_over(site: Site) -> None:
    good, bad = await site.put("adapter-1", MINE), await site.put("adapter-2", THEIRS)
    async with Witness(site.cloud) as witness, Client(good) as device:
        for client_id in (
            "adapter-1",
            "adapter-1:client",
            "client",
            "adapter-1:" + "0" * 16,
            "cloud",
            "witness",
            # NATS knows whose client id it is; mosquitto does not, and there nobody can guess it.
            *([device.login.client_id] if site.kind == "nats" else []),
        ):
            try:
                async with Client(bad, client_id=client_id) as attacker:
                    assert site.kind == "mosquitto"
                    await attacker.publish("smartMeterMessage/theirs/readings", b"mine")
            except RefusedError:
                assert site.kind == "nats"
        assert device.connected
        await device.publish("smartMeterMessage/mine/readings", b"still here")
        await witness.wait_for("smartMeterMessage/mine/readings", b"still here")


async def test_client_id_ends_in_a_secret_and_is_the_same_after_a_restart(site: Site) -> None:
    config = await site.put("adapter-1", MINE)
    first = Client(config).login.client_id
    assert Client(config).login.client_id == first
    other = Client(await site.put("adapter-2", MINE)).login.client_id
    assert first.startswith("adapter-1:client-")
    assert len(first) == len("adapter-1:client-") + 16
    assert first.rpartition("-")[2] != other.rpartition("-")[2]
    assert Client(await site.put("adapter-1", MINE)).login.client_id != first, "another password, another client id"


async def test_wrong_credentials_are_refused(site: Site) -> None:
    config = await site.put("adapter-1", MINE)
    for username, password in (
        ("adapter-1", "wrong"),
        ("adapter-1", ""),
        ("adapter-2", "wrong"),
        ("", ""),
        (site.cloud.username, "wrong"),
        (site.cloud.username, ""),
        ("callout", "wrong"),
    ):
        with pytest.raises(RefusedError):
            async with Client(config, username=username, password=password):
                pass
    async with Client(config):
        pass


async def test_topic_with_a_space_harms_nobody_else(site: Site) -> None:
    good, bad = await site.put("adapter-1", MINE), await site.put("adapter-2", THEIRS)
    async with Witness(site.cloud) as witness, Client(good) as device:
        for topic in (
            "smartMeterMessage/theirs/a b",
            "smartMeterMessage/mine/a b",
            "smartMeterMessage/mine x/readings",
        ):
            async with Client(bad) as attacker:
                attacker.shout(topic, b"space")
                attacker.shout("smartMeterMessage/theirs/readings", b"after it")
                if site.kind == "nats":
                    await attacker.ended()
        await device.publish("smartMeterMessage/mine/readings", b"still here")
        seen = await said(site, witness)
        assert ("smartMeterMessage/mine/readings", b"still here") in seen
        assert not [topic for topic, payload in seen if payload == b"space" and "/mine" in topic]


async def test_flood_of_one_device_does_not_stop_another(site: Site) -> None:
    """NATS cuts the flooding device off and says so; it is let in again when its allowance has grown."""
    few = replace(THEIRS, limit_messages_per_s=50.0)
    good, bad = await site.put("adapter-1", MINE), await site.put("adapter-2", few)
    async with Witness(site.cloud) as witness, Client(good) as device, Client(bad) as attacker:
        for number in range(4000):
            attacker.shout("smartMeterMessage/theirs/readings", b"%d" % number + b"x" * 100)
        await device.publish("smartMeterMessage/mine/readings", b"in the flood")
        if site.kind == "nats":
            await attacker.ended()
            with pytest.raises(RefusedError):
                async with Client(bad):
                    pass
            await until(lambda: {"flood", "login"} <= {refusal.kind for refusal in site.refusals()})
        await device.publish("smartMeterMessage/mine/readings", b"after it")
        await witness.wait_for("smartMeterMessage/mine/readings", b"in the flood")
        await witness.wait_for("smartMeterMessage/mine/readings", b"after it")
        assert device.connected


async def test_flood_in_many_short_connections_is_found(nats_site: NatsSite) -> None:
    """None of them is there long enough to be looked at."""
    config = await nats_site.put("adapter-1", replace(MINE, limit_messages_per_s=50.0))

    async def flood() -> None:
        for _ in range(40):
            async with Client(config) as attacker:
                for _ in range(100):
                    attacker.shout("smartMeterMessage/mine/readings", b"x")
                await attacker.publish("smartMeterMessage/mine/readings", b"last")

    with pytest.raises(RefusedError):
        await flood()
    assert {"flood", "login"} <= {refusal.kind for refusal in nats_site.refusals()}


async def test_message_over_the_limit_ends_only_its_sender(site: Site) -> None:
    good, bad = await site.put("adapter-1", MINE), await site.put("adapter-2", THEIRS)
    async with Witness(site.cloud) as witness, Client(good) as device:
        async with Client(bad) as attacker:
            attacker.shout("smartMeterMessage/theirs/readings", bytes(2_200_000))
            if site.kind == "nats":
                await attacker.ended()
        await device.publish("smartMeterMessage/mine/readings", b"still here")
        await witness.wait_for("smartMeterMessage/mine/readings", b"still here")
        assert all(len(payload) < 2_000_000 for _, payload in await said(site, witness))


async def test_revoked_device_is_out_at_once(site: Site) -> None:
    good, bad = await site.put("adapter-1", MINE), await site.put("adapter-2", THEIRS)
    async with Client(good) as device, Client(bad) as attacker, Client(bad, "adapter-2:second") as second:
        await site.revoke("adapter-2")
        await attacker.ended()
        await second.ended()
        for _ in range(2):
            with pytest.raises(RefusedError):
                async with Client(bad):
                    pass
        assert device.connected


async def test_refused_publish_names_the_device_and_the_topic(site: Site) -> None:
    topic = "smartMeterMessage/theirs/readings"
    async with Client(await site.put("adapter-1", MINE)) as attacker:
        for _ in range(20):
            await attacker.publish(topic, b"forged")

    def found() -> bool:
        return any((each.kind, each.device, each.topic) == ("publish", "adapter-1", topic) for each in site.refusals())

    await until(found)
    if site.kind == "nats":
        assert len(site.refusals()) == 1, described(site.refusals())


async def test_refusals_say_what_and_why(nats_site: NatsSite) -> None:
    config = await nats_site.put("adapter-1", MINE)
    with pytest.raises(RefusedError):
        async with Client(config, password="wrong"):
            pass
    with pytest.raises(RefusedError):
        async with Client(config, client_id="adapter-2"):
            pass
    async with Client(config) as device:
        with pytest.raises(RefusedError):
            await device.subscribe("receipt/#")
        device.shout("smartMeterMessage/mine/a b", b"")
        await device.ended()
    await until(lambda: len(nats_site.refusals()) >= 4)
    assert [(each.kind, each.device, each.topic, each.detail) for each in nats_site.refusals()] == [
        ("login", "adapter-1", None, "User name or password is wrong."),
        ("login", "adapter-1", None, "The client id is not adapter-1, or adapter-1: and anything."),
        ("subscribe", "adapter-1", "receipt/#", ""),
        ("publish", "adapter-1", None, "A topic has a space, which NATS does not take; it ended the connection."),
    ]


async def test_hostile_names_are_refused_and_the_next_device_is_served(nats_site: NatsSite) -> None:
    """What a stranger says of himself reaches the directory, the answer and the log; none of them stumbles."""
    config = await nats_site.put("adapter-1", MINE)
    names = (
        "a" * 60_000,
        "a\nb",
        '"',
        "\\",
        "%s",
        "../meterway",
        "*",
        ">",
        "$SYS",
        "\u00e9",
        "ADAPTER-1",
        "adapter-1 ",
    )
    for name in names:
        with pytest.raises(RefusedError):
            async with Client(config, username=name):
                pass
        with pytest.raises(RefusedError):
            async with Client(config, client_id=name):
                pass
    own = nats_site.broker._issuer.sign(LoginRequest.Options(user="adapter-1"), now_s=0)
    with pytest.raises(RefusedError):
        async with Client(config, password=own):
            pass
    async with Client(config):
        pass


async def test_client_id_of_a_stranger_does_not_have_the_broker_started_again(
    nats_site: NatsSite, caplog: pytest.LogCaptureFixture
) -> None:
    """The broker's log quotes it, and the same log says when a disk is full."""
    full = "[1] 2026/11/23 18:43:20.2 [ERR] Filestore [$MQTT_msgs] Critical write error: no space left on device"
    config = await nats_site.put("adapter-1", MINE)
    for client_id in ("Critical write error", f"\n{full}"):
        with pytest.raises(RefusedError):
            async with Client(config, client_id, password="wrong"):
                pass
    await until(lambda: caplog.text.count("invalid character in client ID") >= 2)
    assert await nats_site.broker._answers()


async def test_new_grant_holds_after_the_device_was_sent_away(nats_site: NatsSite) -> None:
    config = await nats_site.put("adapter-1", MINE)
    async with Witness(nats_site.cloud) as witness, MqttBus(config, "adapter", clean_session=True) as bus:
        await bus.wait_connected()
        both = adapter_grant(["mine", "another"])
        nats_site.table.devices["adapter-1"] = replace(nats_site.table.devices["adapter-1"], grant=both)
        assert nats_site.broker.callout is not None
        await nats_site.broker.callout.end("adapter-1")
        await until(lambda: bus.connected and bus.connections > 1)
        bus.publish("smartMeterMessage/another/readings", b"new meter")
        await witness.wait_for("smartMeterMessage/another/readings", b"new meter")


async def test_device_that_is_forgotten_is_found_and_ended(nats_site: NatsSite) -> None:
    """Nobody says that it was revoked: the service finds it by itself."""
    async with Client(await nats_site.put("adapter-1", MINE)) as device:
        del nats_site.table.devices["adapter-1"]
        await device.ended()


async def test_connections_of_a_device_are_limited(nats_site: NatsSite) -> None:
    config = await nats_site.put("adapter-1", replace(MINE, limit_connections=2))
    async with Client(config, "adapter-1:1"), Client(config, "adapter-1:2"):
        with pytest.raises(RefusedError):
            async with Client(config, "adapter-1:3"):
                pass


async def test_without_the_service_built_in_users_still_log_in(nats_site: NatsSite) -> None:
    config = await nats_site.put("adapter-1", MINE)
    callout = nats_site.broker.callout
    assert callout is not None
    async with Client(config) as device:
        await callout.__aexit__(None, None, None)
        async with Client(nats_site.cloud):
            pass
        with pytest.raises(RefusedError):
            async with Client(config, "adapter-1:second"):
                pass
        with pytest.raises(TransientError):
            await callout.end("adapter-1")
        assert device.connected
        await callout.__aenter__()
        async with Client(config, "adapter-1:second"):
            pass


@pytest.mark.faults
async def test_service_comes_back_with_a_killed_broker(nats_site: NatsSite) -> None:
    config = await nats_site.put("adapter-1", MINE)
    async with MqttBus(config, "adapter", clean_session=True) as bus:
        await bus.wait_connected()
        assert nats_site.broker.pid is not None
        os.kill(nats_site.broker.pid, signal.SIGKILL)
        await until(lambda: bus.connected and bus.connections > 1)
        await nats_site.revoke("adapter-1")
        await until(lambda: not bus.connected)


async def test_observer_still_only_looks(nats_site: NatsSite) -> None:
    async with Client(nats_site.broker.config("observer")) as observer:
        for topic_filter in OBSERVER.read:
            await observer.subscribe(topic_filter)
        await observer.publish("smartMeterMessage/mine/readings", b"forged")
        with pytest.raises(RefusedError):
            await observer.subscribe("#")
    async with Witness(nats_site.cloud) as witness:
        assert await said(nats_site, witness) == []
