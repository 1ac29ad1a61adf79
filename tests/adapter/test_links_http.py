import asyncio
import hashlib
import re
import ssl
import subprocess
from base64 import b64decode
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from meterway.adapter.config import HttpSource, MeterConfig
from meterway.adapter.links import open_link
from meterway.core.config import convert_config
from meterway.core.errors import SetupError, TransientError
from meterway.meter.family import Line
from support.brokers import free_port
from support.links import IN_TIME_S, HttpDevice, Request, always, answer, tcp_server, until

BODY = b'{"total": 12345.678}'


async def first_message(source: HttpSource) -> bytes:
    async with asyncio.timeout(IN_TIME_S), open_link(source, Line()) as link:
        return await link.read()


def secret(folder: Path, text: str) -> Path:
    file = folder / "secret"
    file.write_text(text)
    return file


async def test_each_answer_is_one_message_and_a_connection_serves_many() -> None:
    device = HttpDevice(always(answer(BODY)))
    source = HttpSource(url=device.url, interval_s=0.1)
    async with device.serving(), open_link(source, Line()) as link:
        assert link.message_bounded
        async with asyncio.timeout(IN_TIME_S):
            assert [await link.read() for _ in range(3)] == [BODY] * 3
        assert device.requests[0].method == "GET"
        assert device.requests[0].path == "/data"


async def test_a_read_that_is_given_up_loses_no_answer() -> None:
    shown = asyncio.Event()

    async def answers(_: Request) -> AsyncIterator[bytes]:
        await shown.wait()
        yield answer(BODY)

    device = HttpDevice(answers)
    async with device.serving(), open_link(HttpSource(url=device.url), Line()) as link:
        await until(lambda: len(device.requests) == 1)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await link.read()
        shown.set()
        async with asyncio.timeout(IN_TIME_S):
            assert await link.read() == BODY
        assert len(device.requests) == 1


@pytest.mark.parametrize(
    ("status", "next_step"),
    [
        ("401 Unauthorized", "answers 401: it wants another log-in; check username and password_file, token_file"),
        ("403 Forbidden", "answers 403: it wants another log-in"),
        ("404 Not Found", "answers 404: there is nothing at this path; correct `url`"),
        ("429 Too Many Requests", "answers 429: it is asked too often; raise interval_s"),
        ("503 Service Unavailable", "answers 503: it is in trouble itself; it is asked again by itself"),
        ("204 No Content", "answers 204; is `url` the meter's"),
    ],
)
async def test_an_answer_that_is_none_says_the_next_step(status: str, next_step: str) -> None:
    device = HttpDevice(always(answer(b"no", status=status)))
    async with device.serving():
        with pytest.raises(TransientError, match=f"http://127.0.0.1:{device.port}/data {re.escape(next_step)}"):
            await first_message(HttpSource(url=f"{device.url}?key=geheim"))


async def test_nobody_there_is_said() -> None:
    with pytest.raises(TransientError, match="does not answer"):
        await first_message(HttpSource(url=f"http://127.0.0.1:{free_port()}/x"))


async def test_basic_log_in_token_and_further_headers_are_sent(tmp_path: Path) -> None:
    device = HttpDevice(always(answer(BODY)))
    async with device.serving():
        await first_message(HttpSource(url=device.url, username="me", password_file=secret(tmp_path, "geheim\n")))
        await first_message(HttpSource(url=device.url, token_file=secret(tmp_path, "a-token\n")))
        await first_message(
            HttpSource(url=device.url, headers_file=secret(tmp_path, "X-Key: k1\n\nX-Other:  two words\n"))
        )
    basic, bearer, further = (request.headers for request in device.requests)
    assert b64decode(basic["authorization"].removeprefix("Basic ")) == b"me:geheim"
    assert bearer["authorization"] == "Bearer a-token"
    assert (further["x-key"], further["x-other"]) == ("k1", "two words")


def digest_of(*parts: str) -> str:
    return hashlib.sha256(":".join(parts).encode()).hexdigest()


async def test_digest_log_in_never_sends_the_password(tmp_path: Path) -> None:
    challenge = 'WWW-Authenticate: Digest realm="meter", nonce="n1", qop="auth", algorithm=SHA-256\r\n'

    async def answers(request: Request) -> AsyncIterator[bytes]:
        said = dict(re.findall(r'(\w+)="?([^",]+)"?', request.headers.get("authorization", "")))
        response = digest_of(
            digest_of("me", "meter", "geheim"),
            "n1",
            said.get("nc", ""),
            said.get("cnonce", ""),
            "auth",
            digest_of("GET", "/data"),
        )
        good = said.get("response") == response
        yield answer(BODY) if good else answer(b"x" * 100, status="401 Unauthorized", headers=challenge)

    device = HttpDevice(answers)
    password = secret(tmp_path, "geheim")
    async with device.serving():
        source = HttpSource(url=device.url, auth="digest", username="me", password_file=password)
        assert await first_message(source) == BODY
        assert not any("geheim" in str(request.headers) for request in device.requests)
        password.write_text("another")
        with pytest.raises(TransientError, match="answers 401: it wants another log-in"):
            await first_message(source)


@pytest.mark.parametrize("challenge", ["Digest realm", 'Digest realm="a", nonce="n", algorithm=ROT13', "Digest a=b"])
async def test_a_digest_challenge_that_nobody_understands_is_said_so(tmp_path: Path, challenge: str) -> None:
    device = HttpDevice(always(answer(b"", status="401 No", headers=f"WWW-Authenticate: {challenge}\r\n")))
    source = HttpSource(url=device.url, auth="digest", username="me", password_file=secret(tmp_path, "geheim"))
    async with device.serving():
        with pytest.raises(TransientError, match=r"digest|does not answer"):
            await first_message(source)


async def test_a_redirect_on_the_same_host_is_followed() -> None:
    async def answers(request: Request) -> AsyncIterator[bytes]:
        moved = request.path == "/data"
        yield answer(b"", status="302 Found", headers="Location: /v2\r\n") if moved else answer(BODY)

    device = HttpDevice(answers)
    async with device.serving():
        assert await first_message(HttpSource(url=device.url)) == BODY
    assert [request.path for request in device.requests] == ["/data", "/v2"]


async def test_a_redirect_to_another_host_is_not_followed_and_tells_it_no_secret(tmp_path: Path) -> None:
    other = HttpDevice(always(answer(BODY)))
    location = f"Location: http://localhost:{other.port}/\r\n"
    device = HttpDevice(always(answer(b"", status="307 Over There", headers=location)))
    async with device.serving(), other.serving():
        with pytest.raises(
            TransientError, match="redirects to http://localhost, which is not followed; if that is the"
        ):
            await first_message(HttpSource(url=device.url, token_file=secret(tmp_path, "geheim")))
    assert not other.requests


async def test_redirects_in_a_circle_come_to_an_end() -> None:
    device = HttpDevice(always(answer(b"", status="302 Found", headers="Location: /data\r\n")))
    async with device.serving():
        with pytest.raises(TransientError, match="redirects more than 3 times"):
            await first_message(HttpSource(url=device.url))


async def endless(_: Request) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n\r\n"
    while True:
        yield bytes(65536)


async def endless_refusal(_: Request) -> AsyncIterator[bytes]:
    yield b'HTTP/1.1 401 No\r\nWWW-Authenticate: Digest realm="a", nonce="n", qop="auth"\r\n\r\n'
    while True:
        yield bytes(65536)


async def endless_head(_: Request) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\n"
    while True:
        yield b"X-More: of this\r\n" * 1000


async def slow_drip(_: Request) -> AsyncIterator[bytes]:
    yield b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n"
    while True:
        yield b"x"
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(
    ("answers", "sentence"),
    [
        (endless, "answers more than 1048576 bytes; is `url` the meter's"),
        (endless_refusal, "answers 401"),
        (endless_head, "does not answer"),
        (slow_drip, "does not answer: no answer in time"),
        (always(answer(b"")), "answers nothing"),
        (
            always(answer(b"\x1f\x8b", headers="Content-Encoding: gzip\r\n")),
            "answers compressed though it was asked not to",
        ),
        (always(b"\x1b\x1b\x1b\x1b not HTTP\r\n\r\n"), "does not answer"),
    ],
    ids=["endless", "endless refusal", "endless head", "slow drip", "nothing", "compressed", "not HTTP"],
)
async def test_a_hostile_device_costs_little_and_is_reported(tmp_path: Path, answers: object, sentence: str) -> None:
    device = HttpDevice(answers)  # type: ignore[arg-type]
    password = secret(tmp_path, "geheim")
    timeout_s = 1.0 if answers is slow_drip else 30.0
    source = HttpSource(url=device.url, timeout_s=timeout_s, auth="digest", username="me", password_file=password)
    async with device.serving():
        with pytest.raises(TransientError, match=sentence):
            await first_message(source)


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate for 127.0.0.1 that signs itself, with its key in the same file."""
    file = tmp_path / "device.pem"
    subprocess.run(
        [
            *("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"),
            *("-days", "2", "-subj", "/CN=meter", "-addext", "subjectAltName=IP:127.0.0.1"),
            *("-keyout", file, "-out", tmp_path / "c.pem"),
        ],
        check=True,
        capture_output=True,
    )
    file.write_text(file.read_text() + (tmp_path / "c.pem").read_text())
    return file


async def test_a_certificate_that_nobody_has_signed_is_trusted_when_it_is_named(certificate: Path) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    device = HttpDevice(always(answer(BODY)))
    async with tcp_server(device.serve, tls=context) as port:
        url = f"https://127.0.0.1:{port}/data"
        with pytest.raises(TransientError, match=r"does not answer: .*; put the device's certificate .* into ca_file"):
            await first_message(HttpSource(url=url))
        assert await first_message(HttpSource(url=url, ca_file=certificate)) == BODY


@pytest.mark.parametrize(
    ("key", "content", "sentence"),
    [
        ("token_file", "geheim\ngeheim", "secret holds what cannot stand in a header"),
        ("token_file", "", "secret holds what cannot stand in a header"),
        ("headers_file", "X-Key: ok\ngeheim\n", "line 2 is not `Name: value`"),
        ("headers_file", "X-Key: geh\x00eim\n", "secret holds what cannot stand in a header"),
        ("ca_file", "geheim", "ca_file .*secret, which cannot be used"),
        ("ca_file", None, "ca_file .*secret, which cannot be used: No such file"),
        ("token_file", None, "secret, which cannot be read: No such file"),
    ],
)
async def test_a_file_that_cannot_be_used_is_named_and_not_quoted(
    tmp_path: Path, key: str, content: str | None, sentence: str
) -> None:
    file = tmp_path / "secret" if content is None else secret(tmp_path, content)
    source = convert_config({"type": "http", "url": "http://127.0.0.1/", key: str(file)}, HttpSource, where="x")
    with pytest.raises(TransientError, match=sentence) as caught:
        await first_message(source)
    assert "geh" not in str(caught.value)


@pytest.mark.parametrize(
    ("table", "sentence"),
    [
        ({"url": "ftp://meter/x"}, "url is not http://host/path or https://host/path"),
        ({"url": "http:///x"}, "url is not http://host/path"),
        ({"url": "http://meter:99999/x"}, "url is not http://host/path"),
        ({"url": "http://me:geheim@meter/x"}, "url holds a user name; put it into username"),
        ({"url": "http://meter/", "username": "me"}, "username and password_file go together"),
        (
            {"url": "http://meter/", "username": "me", "password_file": "p", "token_file": "t"},
            "there is a username and a token_file",
        ),
        ({"url": "http://meter/", "interval_s": 0}, "interval_s"),
    ],
)
def test_a_source_that_cannot_work_is_refused(table: dict[str, object], sentence: str) -> None:
    with pytest.raises(SetupError, match=sentence) as caught:
        convert_config({"type": "http", **table}, HttpSource, where="adapter.toml")
    assert "geheim" not in str(caught.value)


def test_a_poll_that_comes_after_the_watchdog_is_refused() -> None:
    source = {"type": "http", "url": "http://meter/", "interval_s": 300}
    with pytest.raises(SetupError, match=r"polled every 300 s, and watchdog_s = 60 .* raise watchdog_s"):
        convert_config({"id": "m1", "source": source}, MeterConfig, where="adapter.toml")
    convert_config({"id": "m1", "source": source, "watchdog_s": 900}, MeterConfig, where="adapter.toml")
