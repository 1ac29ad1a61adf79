"""Enrolling from the command line: whom a code is told, and what becomes of the configuration."""

import asyncio
import ssl
import tomllib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path

import pytest
from fastapi import FastAPI, Request

from meterway.authority import Authority
from meterway.cli.enroll_client import checked_url, enrol
from meterway.cli.enroll_files import check_room, write
from meterway.cloud.server import serving
from meterway.core.enrolment import EnrolmentAnswer, EnrolmentCode, pin_of
from meterway.core.errors import BadDataError, SetupError

SECRET = bytes(range(11))
ANSWER = EnrolmentAnswer(
    kind="adapter",
    device_id="cellar",
    meter_ids=("m1",),
    collects=False,
    broker_url="mqtts://cloud.example",
    username="adapter-cellar",
    password="a password",
    ca_certificate="-----BEGIN CERTIFICATE-----",
)
METERS = '[[meters]]\nid = "m1"\n\n  [[meters.channels]]\n  id = "gas"\n'


@pytest.mark.parametrize("pin", [b"", bytes(13)])
def test_a_code_survives_being_typed(pin: bytes) -> None:
    code = EnrolmentCode(SECRET, pin)
    typed = str(code).lower().replace("-", " ").replace("o", "0").replace("i", "1")
    assert EnrolmentCode.parse(typed) == code
    assert SECRET.hex() not in repr(code)


@pytest.mark.parametrize("change", [lambda text: text[:-1], lambda text: text + "A", lambda text: "B" + text[1:], len])
def test_a_slip_of_the_pen_is_found_before_anything_is_sent(change: object) -> None:
    assert callable(change)
    with pytest.raises(BadDataError, match="slip of the pen"):
        EnrolmentCode.parse(str(change(str(EnrolmentCode(SECRET, bytes(13))))))


def test_a_code_does_not_go_in_the_clear_to_another_machine() -> None:
    assert checked_url("cloud.example") == "https://cloud.example"
    assert checked_url("http://127.0.0.1:8080/") == "http://127.0.0.1:8080"
    with pytest.raises(SetupError, match=r"in the clear: use https://cloud\.example"):
        checked_url("http://cloud.example")
    for wrong in ("ftp://x", "https://", "https://a:b@x", "https://x/path", "https://x:99999"):
        with pytest.raises(SetupError):
            checked_url(wrong)


def authority_in(folder: Path) -> Authority:
    return Authority.open(folder, clock=lambda: datetime.now(UTC))


@asynccontextmanager
async def served(authority: Authority, claimed: Authority, heard: list[str]) -> AsyncIterator[str]:
    """Serve something over TLS of ``authority`` that hands out the certificate of ``claimed``."""
    app = FastAPI()
    app.state.live = type("Live", (), {"close": staticmethod(lambda: None)})

    @app.get("/v1/enrol/ca")
    async def certificate() -> object:
        from starlette.responses import PlainTextResponse

        return PlainTextResponse(claimed.ca_file.read_text())

    @app.post("/v1/enrol")
    async def take(request: Request) -> dict[str, str]:
        heard.append((await request.body()).decode())
        return {}

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(authority.server_certificate("http", ["localhost", "127.0.0.1"]).file)
    async with serving(app, tls=context) as url:
        yield url


async def test_nobody_in_between_hears_the_code(tmp_path: Path) -> None:
    ours, theirs = authority_in(tmp_path / "ours"), authority_in(tmp_path / "theirs")
    certificate = ssl.PEM_cert_to_DER_cert(ours.ca_file.read_text())
    code = EnrolmentCode(SECRET, pin_of(certificate))
    heard: list[str] = []
    async with served(theirs, theirs, heard) as url:
        with pytest.raises(SetupError, match="is not the cloud that made this code"):
            await asyncio.to_thread(enrol, url, code, "adapter")
    async with served(theirs, ours, heard) as url:  # shows our certificate, but cannot use it
        with pytest.raises(Exception, match="CERTIFICATE_VERIFY_FAILED"):
            await asyncio.to_thread(enrol, url, code, "adapter")
    assert heard == []
    async with served(ours, ours, heard) as url:
        with pytest.raises(BadDataError, match="is not understood"):
            await asyncio.to_thread(enrol, url, code, "adapter")
    assert str(code) in heard[0]


def test_the_table_is_added_and_nothing_else_changes(tmp_path: Path) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text(f'id = "cellar" # mine\n\n{METERS}')
    config.chmod(0o640)
    check_room(config, "broker", replace=False)
    written = write(ANSWER, "https://cloud.example", config, ("broker",))
    assert config.read_text().startswith(f'id = "cellar" # mine\n\n{METERS}')
    assert tomllib.loads(config.read_text())["broker"] == {
        "url": "mqtts://cloud.example",
        "username": "adapter-cellar",
        "password_file": str(tmp_path / "adapter-cellar.password"),
        "ca_file": str(tmp_path / "adapter-cellar.ca.pem"),
        "cloud_url": "https://cloud.example",
    }
    assert config.stat().st_mode & 0o777 == 0o640
    assert (tmp_path / "adapter-cellar.password").read_text() == "a password\n"
    assert (tmp_path / "adapter-cellar.password").stat().st_mode & 0o777 == 0o600
    assert written.notes == ["the device may not publish for gas: add them on the devices page"]


def test_a_table_is_replaced_only_when_that_is_said(tmp_path: Path) -> None:
    config = tmp_path / "edge.toml"
    config.write_text(
        '[concentrator]\nid = "x"\n[concentrator.cloud] # old\nurl = "mqtt://old"\n[[adapters]]\nid = "a"\n'
    )
    with pytest.raises(SetupError, match=r"has \[concentrator.cloud\] already: --replace"):
        check_room(config, "concentrator.cloud", replace=False)
    write(ANSWER, "https://cloud.example", config, ("concentrator.cloud",))
    found = tomllib.loads(config.read_text())
    assert found["concentrator"]["cloud"]["url"] == "mqtts://cloud.example"
    assert found["adapters"] == [{"id": "a"}]
    assert "old" not in config.read_text()


def test_a_configuration_that_cannot_be_edited_safely_stays_as_it_was(tmp_path: Path) -> None:
    config = tmp_path / "adapter.toml"
    config.write_text('broker = { url = "mqtt://old" }\n')
    written = write(ANSWER, "https://cloud.example", config, ("broker",))
    assert config.read_text() == 'broker = { url = "mqtt://old" }\n'
    assert written.config is None
    assert written.table.startswith('[broker]\nurl = "mqtts://cloud.example"')
    assert written.notes == [f"{config} could not be edited safely, and is as it was"]
