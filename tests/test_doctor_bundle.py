"""Bundles of the doctor: nobody is named in them, and they say again what was found."""

import base64
import stat
import zipfile
from datetime import UTC, datetime, timedelta
from pathlib import Path
from random import Random

import pytest
from msgspec.structs import replace

from meterway.adapter.config import AdapterConfig, MeterConfig, MqttSource, SerialSource, Source, TcpSource
from meterway.adapter.doctor.adapter import AdapterReport, LinkReport, judge
from meterway.adapter.doctor.bundle import Content, build, write
from meterway.adapter.doctor.check import CODES
from meterway.adapter.doctor.hide import hide, spoken
from meterway.adapter.doctor.hide.identities import identities
from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms
from meterway.adapter.doctor.meter import Subject
from meterway.adapter.doctor.replay import replay
from meterway.adapter.raw import Chunk
from meterway.core.errors import SetupError
from meterway.core.zones import find_zone
from meterway.meter import diagnose
from meterway.meter.diagnose import Heard
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line, family_names, load_family, push_lists
from meterway.meter.keys import NO_KEYS, Keys
from meterway.plugins import load_driver, make_decoder
from support import sml
from support.corpus import captures
from support.uart import read_as

METER = "6f0ad1ce-93b8-4b0e-9f5e-0c58a3b7d201"
NOW = datetime(2026, 11, 23, 12, tzinfo=UTC)
CHUNK_BYTES = 64
SECRETS = {
    "id": METER,
    "adapter": "kellerraum-7",
    "host": "zaehler.example.org",
    "path": "/home/erika.mustermann/spool",
}
TCP = TcpSource(host=SECRETS["host"], port=4059)
FAMILIES = family_names()
WITH_SAMPLE = [name for name in FAMILIES if load_family(name).sample is not None]
READ = [name for name in WITH_SAMPLE if load_driver(load_family(name).protocol).decoder is not None]
CLEAR = [name for name in READ if (load_family(name).sample or pytest.fail("no sample")).keys == NO_KEYS]


def chunks(data: bytes, *, size: int = CHUNK_BYTES) -> list[Chunk]:
    parts = [data[at : at + size] for at in range(0, len(data), size)]
    return [
        Chunk(NOW - timedelta(seconds=5) + number * timedelta(milliseconds=5), part)
        for number, part in enumerate(parts)
    ]


def address_of(family: Family) -> str:
    """The family's documents are of several meters: the sample's is named in it."""
    if family.json is None or not family.json.several or family.sample is None:
        return ""
    text = family.sample.text or ""
    return text.split('"id":"')[1].split('"')[0] if '"id":"' in text else text.split("/")[1]


def report(
    family: Family, data: bytes, *, keys: Keys = NO_KEYS, size: int = CHUNK_BYTES, source: Source = TCP
) -> AdapterReport:
    """What the doctor finds out about an adapter with one such meter, whose ring holds ``data``."""
    if family.protocol == "json":
        source = MqttSource(topic="haus-mustermann/42")
        size = len(data)
    meter = MeterConfig(id=METER, source=source, family=family.name, address=address_of(family))
    config = AdapterConfig(id=SECRETS["adapter"], spool_dir=Path(SECRETS["path"]), meters=(meter,))
    link = LinkReport([meter], chunks=chunks(data, size=size), subjects=[Subject.of(meter, family, keys)])
    link.checks = judge(link, NOW, is_running=False)
    found = AdapterReport(config, now=NOW)
    found.links.append(link)
    return found


def outcome(report: AdapterReport) -> list[tuple[str, bool]]:
    return [(check.code, check.ok) for link in report.links for check in link.checks]


def bundled(report: AdapterReport, folder: Path) -> tuple[Path, list[Content]]:
    contents = build([report], [])
    path = folder / "help.zip"
    write(path, contents)
    return path, contents


def spellings(identity: str) -> set[bytes]:
    """How an identity may be written."""
    raw = identity.encode()
    found = {raw, raw[::-1], raw.lower(), raw.upper()}
    packed = identity if len(identity) % 2 == 0 else f"0{identity}"
    try:
        octets = bytes.fromhex(packed)
    except ValueError:
        octets = b""
    if octets:
        found |= {octets, octets[::-1]}
    for each in tuple(found):
        found |= {each.hex().encode(), each.hex().upper().encode()}
        found.add(base64.b64encode(each).rstrip(b"="))
    return {each for each in found if len(each) >= 4}


def identities_of(family: Family) -> set[str]:
    """Whatever in the expected registers of a sample, and in its meter's name, is a number of its own."""
    assert family.sample is not None
    found = set()
    for code, value, *_ in family.sample.registers:
        c_and_d = code.partition(":")[2].split(".")[:2]
        if c_and_d in (["0", "0"], ["96", "1"], ["42", "0"], ["9", "21"], ["9", "20"]) and len(value) >= 8:
            found.add(value)
    return found


def octets_of(contents: list[Content]) -> bytes:
    """The bytes that a bundle shows, which stand in it in hex digits."""
    lines = b"".join(each.data for each in contents if each.file.endswith(".jsonl")).splitlines()
    return b"".join(bytes.fromhex(line.split(b'"hex":"')[1].split(b'"')[0].decode()) for line in lines)


def assert_names_nobody(contents: list[Content], identities: set[str]) -> None:
    shown = {content.file: content.data for content in contents}
    shown["all bytes"] = octets_of(contents)
    for file, data in shown.items():
        for identity in identities:
            for spelling in spellings(identity):
                assert spelling not in data, (file, identity, spelling)


def assert_same_again(path: Path, before: list[tuple[str, bool]], *, recorded: bool = False) -> None:
    [link] = replay(path).links
    assert link.is_recorded is recorded
    assert [(check.code, check.ok) for check in link.checks] == before
    assert all(code in CODES | diagnose.CODES for code, _ in before)


@pytest.mark.parametrize("name", CLEAR)
def test_a_bundle_of_a_good_meter_names_nobody_and_replays(name: str, tmp_path: Path) -> None:
    family = load_family(name)
    assert family.sample is not None
    found = report(family, family.sample.telegram * 3)
    path, contents = bundled(found, tmp_path)
    assert_names_nobody(contents, {*SECRETS.values(), *identities_of(family)})
    assert ("telegrams", True) in outcome(found)
    assert_same_again(path, outcome(found))


@pytest.mark.parametrize("name", [name for name in READ if name not in CLEAR])
def test_a_bundle_of_an_encrypted_meter_says_what_was_found(name: str, tmp_path: Path) -> None:
    family = load_family(name)
    assert family.sample is not None
    right, wrong = family.sample.keys, Keys(Random(1).randbytes(16))
    for keys, recorded in ((right, True), (wrong, True), (NO_KEYS, False)):
        found = report(family, family.sample.telegram, keys=keys)
        folder = tmp_path / f"{keys is right}{recorded}"
        folder.mkdir()
        path, contents = bundled(found, folder)
        assert_names_nobody(contents, {*SECRETS.values(), *identities_of(family)})
        assert_same_again(path, outcome(found), recorded=recorded)
        manifest = next(each for each in contents if each.file == "manifest.json").data
        assert (b'"encrypted": true' in manifest) is recorded


@pytest.mark.parametrize("name", [name for name in WITH_SAMPLE if name not in READ])
def test_bytes_in_which_names_cannot_be_told_from_values_are_left_out(name: str, tmp_path: Path) -> None:
    family = load_family(name)
    assert family.sample is not None
    found = report(family, family.sample.telegram)
    path, contents = bundled(found, tmp_path)
    assert not any(each.file.endswith(".jsonl") for each in contents)
    assert_names_nobody(contents, {*SECRETS.values(), *identities_of(family)})
    assert_same_again(path, outcome(found), recorded=True)


def fault(found: AdapterReport, code: str, tmp_path: Path, *hidden: str) -> list[Content]:
    """Assert that the fault is found, in the report as in the bundle, and that the bundle names nobody."""
    assert (code, False) in outcome(found), outcome(found)
    path, contents = bundled(found, tmp_path)
    assert_names_nobody(contents, {*SECRETS.values(), *hidden})
    assert_same_again(path, outcome(found))
    return contents


def sample(name: str) -> tuple[Family, bytes, set[str]]:
    family = load_family(name)
    assert family.sample is not None
    return family, family.sample.telegram, identities_of(family)


# One of each way in which bytes are framed and checked.
FRAMED = {
    "p1-generic": 600,
    "sml-generic": 150,
    "dlms-aidon": 200,
    "dlms-kaifa-norway": 90,
    "mbus-heat": 60,
    "iec-itron-ace3000": 90,
    "iec-landisgyr-e350": 90,
}


@pytest.mark.parametrize("name", FRAMED)
def test_a_wrong_checksum(name: str, tmp_path: Path) -> None:
    family, telegram, identities = sample(name)
    at = FRAMED[name]
    damaged = telegram[:at] + bytes((telegram[at] ^ 0x04,)) + telegram[at + 1 :]
    fault(report(family, damaged * 3), "bad-checksum", tmp_path, *identities)


@pytest.mark.parametrize("name", ["p1-generic", "sml-generic", "dlms-aidon", "p1-belgium"])
def test_half_telegrams(name: str, tmp_path: Path) -> None:
    family, telegram, identities = sample(name)
    fault(report(family, telegram[: 3 * len(telegram) // 4]), "half-telegrams", tmp_path, *identities)


@pytest.mark.parametrize(("sent", "read"), [(Line(baud=9600), Line()), (Line(), Line(baud=9600))])
def test_a_wrong_baud(sent: Line, read: Line, tmp_path: Path) -> None:
    family, telegram, identities = sample("p1-generic")
    seen = read_as(telegram * 2, sent, read)
    fault(report(family, seen), "wrong-baud", tmp_path, *identities)


def test_a_wrong_parity(tmp_path: Path) -> None:
    family, telegram, identities = sample("p1-v2")
    seen = read_as(telegram, Line(baud=9600, data_bits=7, parity="E"), Line(baud=9600))
    eight_bits = SerialSource(port=Path("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0"), data_bits=8)
    contents = fault(report(family, seen, source=eight_bits), "wrong-parity", tmp_path, "A50285BI", *identities)
    shown = octets_of(contents)
    plain = bytes(byte & 0x7F for byte in shown)
    assert not any(identity.encode() in plain or identity.encode().hex().encode() in plain for identity in identities)


@pytest.mark.parametrize("sender", ["sml-generic", "dlms-aidon", "mbus-heat"])
def test_a_wrong_protocol(sender: str, tmp_path: Path) -> None:
    _, telegram, identities = sample(sender)
    fault(report(load_family("p1-generic"), telegram * 2), "wrong-protocol", tmp_path, *identities)


def test_no_byte_at_all(tmp_path: Path) -> None:
    found = report(load_family("p1-generic"), b"")
    path, _ = bundled(found, tmp_path)
    assert outcome(found) == [("no-bytes", False)]
    assert_same_again(path, outcome(found), recorded=True)


def test_a_pin(tmp_path: Path) -> None:
    locked = sml.frame(sml.get_list(sml.entry(sml.IMPORT, sml.integer(12345000, 8), unit=sml.WH)))
    fault(report(load_family("sml-generic"), locked * 3), "pin-locked", tmp_path)


def test_readouts_with_parity_bits(tmp_path: Path) -> None:
    family, telegram, identities = sample("iec-landisgyr-e350")
    seen = read_as(telegram, Line(baud=9600, data_bits=7, parity="E"), Line(baud=9600))
    found = report(family, seen)
    path, contents = bundled(found, tmp_path)
    assert outcome(found)[0] == ("telegrams", True)
    assert_names_nobody(contents, identities)
    assert_same_again(path, outcome(found))


def test_objects_that_become_nothing(tmp_path: Path) -> None:
    known = sml.entry(sml.IMPORT, sml.integer(12345001, 8), unit=sml.WH)
    odd = sml.entry(bytes.fromhex("8181c78299ff"), sml.integer(7, 4), unit=sml.WH)
    found = report(load_family("sml-generic"), sml.frame(sml.get_list(known, odd)))
    path, _ = bundled(found, tmp_path)
    assert outcome(found) == [("telegrams", True), ("unmapped", True)]
    assert_same_again(path, outcome(found))
    (tmp_path / "odd").mkdir()
    fault(report(load_family("sml-generic"), sml.frame(sml.get_list(odd))), "unmapped", tmp_path / "odd")


def test_a_list_that_changed(tmp_path: Path) -> None:
    entry = sml.entry(sml.IMPORT, sml.integer(12345001, 8), unit=sml.WH)
    power = sml.entry(sml.POWER, sml.integer(120, 4), unit=sml.W)
    odd = sml.entry(bytes.fromhex("8181c78299ff"), sml.integer(7, 4), unit=sml.WH)
    old, new = (sml.frame(sml.get_list(*entries)) for entries in ((entry, power), (entry, power, odd)))
    found = report(load_family("sml-generic"), old * 20 + new * 20)
    contents = fault(found, "list-changed", tmp_path)
    manifest = next(each for each in contents if each.file == "manifest.json").data
    assert b"1 objects came (129-129:199.130.153*255)" in manifest
    assert b"1 unmapped" in manifest


def test_a_clock_that_is_wrong(tmp_path: Path) -> None:
    family, telegram, identities = sample("p1-generic")
    found = report(family, telegram)
    fault(found, "clock-wrong", tmp_path, *identities)
    [link] = found.links
    link.subjects = [Subject.of(replace(link.meters[0], clock="recorded"), family)]
    assert "clock-wrong" not in [check.code for check in judge(link, NOW, is_running=False)]


def test_silence_of_a_meter_whose_adapter_runs(tmp_path: Path) -> None:
    family, telegram, identities = sample("sml-generic")
    found = report(family, telegram)
    [link] = found.links
    found.is_running = True
    found.now = NOW + timedelta(seconds=90)
    link.checks = judge(link, found.now, is_running=True)
    [silent] = [check for check in link.checks if not check.ok]
    assert silent.detail.startswith("silent since 2026-11-23T11:59:55Z, 95 s")
    fault(found, "silent", tmp_path, *identities)


def test_meters_that_share_a_link_are_told_apart_in_the_bundle_too(tmp_path: Path) -> None:
    family = load_family("mbus-heat")
    data, meters = b"", []
    source = SerialSource(port=Path("/dev/serial/by-id/usb-FTDI_A50285BI-if00-port0"))
    for number, name in enumerate(("mbus-heat", "mbus-water", "mbus-gas")):
        _, telegram, _ = sample(name)
        data += telegram * (number + 1)
    for number, meter in enumerate(("6MWY0720264711", "8MWY0720264712", "7MWY0720264714")):
        meters.append(MeterConfig(id=METER[:-1] + str(number), source=source, family="mbus-heat", address=meter))
    config = AdapterConfig(id="a", spool_dir=Path(SECRETS["path"]), meters=tuple(meters))
    link = LinkReport(meters, chunks=chunks(data), subjects=[Subject.of(meter, family) for meter in meters])
    link.checks = judge(link, NOW, is_running=False)
    found = AdapterReport(config, now=NOW, links=[link])
    path, contents = bundled(found, tmp_path)
    assert_names_nobody(contents, {METER[:-1], "20264711", "20264712", "20264714", "A50285BI"})
    [again] = replay(path).links
    assert not again.is_recorded
    counts = [check.detail.split()[0] for check in again.checks if check.code == "telegrams"]
    assert counts == ["1", "2", "3"]


def test_noise_between_telegrams_is_shuffled(tmp_path: Path) -> None:
    family, telegram, identities = sample("sml-generic")
    note = b"Erika Mustermann, Heidestrasse 17, meter 1MWY0000000042, "
    found = report(family, note + telegram + note * 2 + telegram)
    _, contents = bundled(found, tmp_path)
    assert b"Mustermann" not in octets_of(contents)
    assert_names_nobody(contents, {*identities, "1MWY0000000042"})


def test_the_names_that_owners_give_to_topics_are_hidden(tmp_path: Path) -> None:
    family, telegram, _ = sample("json-esphome")
    named = telegram.replace(b"slimmelezer", b"erikas-haus")
    source = MqttSource(topic="erikas-haus/sensor/#")
    meter = MeterConfig(id=METER, source=source, family=family.name)
    messages = [Chunk(NOW, line) for line in named.splitlines()]
    link = LinkReport([meter], chunks=messages, subjects=[Subject.of(meter, family)])
    link.checks = judge(link, NOW, is_running=False)
    config = AdapterConfig(id="a", spool_dir=Path("spool"), meters=(meter,))
    found = AdapterReport(config, now=NOW, links=[link])
    path, contents = bundled(found, tmp_path)
    assert b"erikas-haus" in named
    assert_names_nobody(contents, {"erikas-haus"})
    assert_same_again(path, outcome(found))


def test_a_bundle_is_for_its_owner_alone_and_never_replaces_a_file(tmp_path: Path) -> None:
    family, telegram, _ = sample("sml-generic")
    path, contents = bundled(report(family, telegram), tmp_path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    with zipfile.ZipFile(path) as archive:
        assert archive.namelist() == [content.file for content in contents]
        assert archive.testzip() is None
    before = path.read_bytes()
    with pytest.raises(SetupError, match="is there already"):
        write(path, contents)
    assert path.read_bytes() == before


def test_a_bundle_is_bounded(tmp_path: Path) -> None:
    family, telegram, _ = sample("p1-generic")
    path, contents = bundled(report(family, telegram * 3000, size=4096), tmp_path)
    [lines] = [each.data for each in contents if each.file.endswith(".jsonl")]
    assert len(lines) < 3 << 20
    assert path.stat().st_size < 4 << 20


def test_the_configuration_in_a_bundle_has_neither_secrets_nor_places(tmp_path: Path) -> None:
    family, telegram, _ = sample("sml-generic")
    found = report(family, telegram)
    [meter] = found.config.meters
    meter = replace(
        meter,
        key_file=Path("/etc/meterway/erika.key"),
        static={"SITE_household_size": 3},
        mapping={"1-0:1.8.0": "OBIS_1.8.0"},
    )
    broker = replace(found.config.broker, url="mqtt://10.9.8.7:1883", username="erika", password_file=Path("/etc/pw"))
    found.config = replace(found.config, meters=(meter,), broker=broker)
    [shown] = [each.data.decode() for each in bundled(found, tmp_path)[1] if each.file.endswith("config.toml")]
    for secret in ("erika", "10.9.8.7", "household", "/etc", *SECRETS.values()):
        assert secret not in shown
    assert 'family = "sml-generic"' in shown
    assert "OBIS_1.8.0" in shown


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\x05\x06" + bytes(18)])
def test_what_is_no_bundle_is_refused(data: bytes, tmp_path: Path) -> None:
    path = tmp_path / "odd.zip"
    path.write_bytes(data)
    with pytest.raises(SetupError, match=r"odd\.zip is no"):
        replay(path)


PROTOCOLS = {
    **{name: name for name in ("sml", "p1", "iec62056_21", "mbus", "wmbus")},
    "dlms_push": "dlms",
    "p1_encrypted": "p1-encrypted",
}


@pytest.mark.parametrize("folder", PROTOCOLS)
def test_captures_of_real_meters_decode_as_before(folder: str) -> None:
    protocol = PROTOCOLS[folder]
    found = list(captures(folder))
    if not found:
        pytest.skip("corpus not present")
    lists = push_lists()

    def read(data: bytes) -> Heard:
        setup = MeterSetup.unknown(protocol, find_zone("Europe/Berlin"), lists=lists)
        return diagnose.hear([data], make_decoder(setup))

    different = 0
    for capture in found:
        data = capture.data[: 1 << 16]
        before = read(data)
        names = identities(before.telegrams)
        is_read = bool(before.telegrams or before.errors)
        shown = hide([Chunk(NOW, data)], spoken(data, protocol, is_read=is_read), names, Pseudonyms(b"x"))
        assert shown is not None, capture.name
        assert not any(spelling in shown[0].data for name in names if len(name) > 7 for spelling in spellings(name))
        after = read(shown[0].data)
        different += values_of(before) != values_of(after) or before.reasons != after.reasons
    assert different <= len(found) // 20


def values_of(heard: Heard) -> list[list[object]]:
    """Numbers with their codes; what is text may be a name."""
    return [[(each.obis, each.value) for each in telegram.registers if each.unit] for telegram in heard.telegrams]
