"""Drivers of other packages: found, loaded late, and harmless when they are broken; the example is one, and runs."""

import asyncio
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from meterway import plugins
from meterway.adapter.config import MeterConfig, TcpSource
from meterway.core.errors import SetupError
from meterway.core.zones import find_zone
from meterway.meter.codec import CodecError
from meterway.meter.driver import MeterSetup
from meterway.meter.family import family_names, load_family
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.mbus_master import MbusMaster
from meterway.meter.sml import SmlDecoder
from meterway.meter.telegram import Telegram
from support.adapter import METER, adapter, concentrating
from support.brokers import RunningBroker

PROJECT = Path(__file__).parents[1]
EXAMPLE = PROJECT / "examples/driver-tickbox"
PASSWORD = "rosebud"


def setup(name: str, *, address: str = "", password: str | None = None) -> MeterSetup:
    family = load_family(name)
    return MeterSetup(family=family, zone=find_zone(family.timezone), address=address, password=password)


def install(folder: Path, name: str, entry_points: str) -> None:
    """Put the metadata of a package where Python finds it, as pip would."""
    metadata = folder / f"{name.replace('-', '_')}-1.0.0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0.0\n")
    (metadata / "entry_points.txt").write_text(entry_points)


def install_example(folder: Path) -> None:
    """Install the example without network: its files, and the metadata that its pyproject.toml stands for."""
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())["project"]
    points = project["entry-points"]["meterway.drivers"]
    lines = "".join(f"{name} = {value}\n" for name, value in points.items())
    install(folder, project["name"], f"[meterway.drivers]\n{lines}")
    (folder / "meterway_tickbox").symlink_to(EXAMPLE / "src/meterway_tickbox")


def python(folder: Path, code: str) -> str:
    """Return what a new Python prints that sees the packages in ``folder``."""
    environment = {**os.environ, "PYTHONPATH": str(folder)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    return done.stdout


def test_every_family_has_a_driver_that_makes_what_reads_it() -> None:
    for name in family_names():
        family = load_family(name)
        if family.protocol not in plugins.protocols():
            continue
        driver = plugins.load_driver(family.protocol)
        assert driver.title
        assert driver.asks(family) == (driver.master is not None and family.is_asked)


def test_decoders_and_masters_are_made_for_a_family() -> None:
    assert isinstance(plugins.make_decoder(setup("sml-generic")), SmlDecoder)
    assert isinstance(plugins.make_master(setup("iec-generic", address="1", password="2")), Iec62056Master)
    assert isinstance(plugins.make_master(setup("mbus-heat", address="12345678")), MbusMaster)
    assert PASSWORD not in repr(setup("iec-generic", password=PASSWORD))


def test_a_decoder_with_an_address_takes_only_what_its_meter_says() -> None:
    sample = load_family("sml-generic").sample
    assert sample is not None
    [telegram] = plugins.make_decoder(setup("sml-generic")).feed(sample.telegram, 0.0)
    assert isinstance(telegram, Telegram)
    own = plugins.make_decoder(setup("sml-generic", address=telegram.meter.lower()))
    assert own.feed(sample.telegram, 0.0) == [telegram]
    other = plugins.make_decoder(setup("sml-generic", address="0A01"))
    assert other.feed(b"noise" + sample.telegram, 0.0) == []
    assert other.skipped_bytes == 5
    damaged = bytearray(sample.telegram)
    damaged[len(damaged) // 2] ^= 1
    assert any(isinstance(item, CodecError) for item in other.feed(bytes(damaged), 0.0) + other.idle(9.0))
    assert other.buffered_bytes == 0


@pytest.mark.parametrize(
    ("protocol", "sentence"),
    [
        ("smll", "protocol 'smll' is not known; did you mean 'sml'?"),
        ("\x00", "is not known; there are dlms"),
    ],
)
def test_an_unknown_protocol_is_refused_with_those_there_are(protocol: str, sentence: str) -> None:
    with pytest.raises(SetupError) as caught:
        plugins.load_driver(protocol)
    assert sentence in str(caught.value)


def test_a_protocol_that_only_sends_cannot_be_asked() -> None:
    with pytest.raises(SetupError, match="meters that speak sml send by themselves"):
        plugins.make_master(setup("sml-generic"))


SHOW = """
from meterway import plugins
from meterway.core.errors import SetupError
print(*plugins.protocols())
import sys
print("imported", *sorted(name for name in sys.modules if name in ("broken_driver", "meterway_tickbox")))
for name in ("p1", "tickbox", "broken", "odd", "twice"):
    try:
        print(name, "is", plugins.load_driver(name).title)
    except SetupError as error:
        print(name, "fails:", error)
for name in ("tickbox-t1", "tickbox-t9"):
    try:
        print(plugins.find_family(name).title)
    except SetupError as error:
        print(name, "fails:", error)
"""


def test_names_are_listed_without_an_import_and_a_broken_package_hurts_nobody_else(tmp_path: Path) -> None:
    install_example(tmp_path)
    (tmp_path / "broken_driver.py").write_text("ODD = 1\nimport there_is_no_such_module\n")
    (tmp_path / "odd_driver.py").write_text("ODD = 1\n")
    install(tmp_path, "acme-broken", "[meterway.drivers]\nbroken = broken_driver:DRIVER\ntwice = odd_driver:ODD\n")
    install(tmp_path, "acme-odd", "[meterway.drivers]\nodd = odd_driver:ODD\ntwice = odd_driver:ODD\n")
    names, imported, p1, tickbox, broken, odd, twice, family, nothing = python(tmp_path, SHOW).splitlines()
    assert {"p1", "sml", "tickbox", "broken", "odd"} <= set(names.split())
    assert imported == "imported"
    assert p1 == "p1 is DSMR P1 port"
    assert tickbox == "tickbox is Tickbox counters, lines of text"
    assert broken == (
        "broken fails: the driver 'broken' of the package acme-broken 1.0.0 cannot be loaded: ModuleNotFoundError: "
        "No module named 'there_is_no_such_module'; update the package, or remove it"
    )
    assert "the package acme-odd 1.0.0: odd_driver:ODD is not the Driver of the protocol 'odd'" in odd
    assert "the packages acme-broken 1.0.0 and acme-odd 1.0.0 both bring a driver 'twice'" in twice
    assert family == "Tickbox T1, the example of a driver"
    assert "there is no family of meters `tickbox-t9`; did you mean `tickbox-t1`?; and the driver 'broken'" in nothing


def test_the_example_passes_its_own_tests() -> None:
    arguments = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull]
    environment = {**os.environ, "PYTHONPATH": str(EXAMPLE / "src")}
    done = subprocess.run(
        [*arguments, "--rootdir", str(EXAMPLE), str(EXAMPLE / "tests")],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]


async def test_an_adapter_asks_the_meters_of_the_example(
    tmp_path: Path, nats: RunningBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    install_example(tmp_path / "packages")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "packages"))
    monkeypatch.syspath_prepend(EXAMPLE / "src")
    from meterway_tickbox.codec import answer

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while request := await reader.readline():
            address, _, password = request[1:].decode().strip().partition(" ")
            writer.write(answer(address, "imp=1234.567kWh pow=412W" if password == PASSWORD else "refused"))
        writer.close()

    files = {name: tmp_path / name for name in ("right", "wrong")}
    files["right"].write_text(f"{PASSWORD}\n")
    files["wrong"].write_text("lounge\n")
    ids = {"right": METER, "wrong": METER.replace("1", "2")}
    async with await asyncio.start_server(serve, "127.0.0.1", 0) as server, concentrating(nats) as seen:
        source = TcpSource(host="127.0.0.1", port=server.sockets[0].getsockname()[1])
        meters = [
            MeterConfig(
                id=ids[name],
                family="tickbox-t1",
                source=source,
                address=f"0{number}",
                password_file=files[name],
                interval_s=0.2,
            )
            for number, name in enumerate(files)
        ]
        async with adapter(tmp_path, nats, *meters):
            await seen.until(lambda: len(seen.of("readings", ids["right"])) >= 2)
            await seen.until(lambda: any(each["state"] == "offline" for each in seen.of("status", ids["wrong"])))
            status = next(each for each in seen.of("status", ids["wrong"]) if each["state"] == "offline")
            assert status["detail"] == (
                "Tickbox 01 refuses to answer; put its password into the file of `password_file`; asked again after "
                "3600 s"
            )
            first = seen.of("readings", ids["right"])[0]
            assert first["propertyValues"][0]["numericalValue"] == 1234.567
        assert not any(b"lounge" in payload or PASSWORD.encode() in payload for _, payload in seen.messages)
