"""Every error is a problem with a sentence; other sites and oversized bodies are stopped; the document is whole."""

import asyncio
import json
from datetime import UTC, datetime

import httpx
import pytest

from meterway.cloud.api import create_app
from meterway.cloud.guard import LIMIT_BODY_BYTES
from meterway.cloud.server import serving
from meterway.cloud.store import Store
from meterway.core.errors import SetupError
from support.cloud_http import client_of, put, reading, value


def assert_problem(answer: httpx.Response, status: int, sentence: str) -> None:
    assert answer.status_code == status, answer.text
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["title"]
    assert sentence in problem["detail"]


PROBLEMS = [
    ("GET", "/nothing", 404, "There is nothing at /nothing; /openapi.json lists what there is."),
    ("GET", "/static/../../api.py", 404, "There is nothing at"),
    ("GET", "/v1/meterReadings", 405, "GET is not possible at /v1/meterReadings; use POST."),
    ("DELETE", "/v1/meters", 405, "DELETE is not possible at /v1/meters; use GET."),
    ("GET", "/v1/meters/unknown", 404, "There is no meter unknown; GET /v1/meters lists"),
    ("GET", "/v1/meters/a%20b", 404, "There is no such meter: meter id 'a b' is not 1 to 64 letters"),
    ("GET", "/v1/meters/unknown/curve", 404, "There is no meter unknown"),
    ("GET", "/v1/meters?limit=5000", 422, "`limit`: Input should be less than or equal to 1000"),
    ("GET", "/v1/meters?limit=x", 422, "`limit`: Input should be a valid integer"),
    ("GET", "/v1/curve?zone=Mars/Base", 422, "time zone 'Mars/Base' is not an IANA zone such as Europe/Berlin"),
    ("GET", "/v1/curve?day=x", 422, "`day` 'x' is not a day; write it as 2026-11-23"),
    ("GET", "/v1/quarantine/9", 404, "Nothing in quarantine has the id 9; it may have been replayed."),
    ("GET", "/v1/quarantine/99999999999999999999", 422, "`item_id`"),
    (
        "GET",
        "/v1/meterReadings/bulk?format=xml",
        422,
        "`format` 'xml' does not exist; there are ndjson, csv and signed.",
    ),
    ("POST", "/v1/quarantine/replay", 422, 'Send {"ids": [1, 2]}.'),
]


async def test_each_error_is_a_problem_that_says_what_to_do(client: httpx.AsyncClient) -> None:
    for method, path, status, sentence in PROBLEMS:
        assert_problem(await client.request(method, path), status, sentence)
    hostile = {"operationalProperties": [{"specificPropertyName": "x' or '1'='1"}]}
    answer = await client.post("/v1/meterReadings", json=hostile)
    assert_problem(answer, 422, "is no property; docs/properties.md lists all.")


async def test_a_replay_where_nobody_stores_is_a_problem(client: httpx.AsyncClient) -> None:
    answer = await client.post("/v1/quarantine/replay", json={"ids": [1]})
    assert_problem(answer, 503, "This server only reads")


async def test_a_request_whose_head_never_ends_is_hung_up_on(store: Store) -> None:
    async with serving(create_app(store), head_s=1.0) as url:
        reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert (await reader.readuntil(b"ok\n")).startswith(b"HTTP/1.1 200")
        writer.write(b"GET /healthz HTTP/1.1\r\nHost: local")
        async with asyncio.timeout(60):
            assert await reader.read() == b""
        writer.close()


async def test_a_body_of_ten_megabytes_is_refused(client: httpx.AsyncClient) -> None:
    body = b'{"meterIds": ["' + b"a" * 10_000_000 + b'"]}'
    assert_problem(await client.post("/v1/meterReadings", content=body), 413, f"longer than {LIMIT_BODY_BYTES} bytes")

    async def unannounced() -> object:
        for start in range(0, len(body), 65536):
            yield body[start : start + 65536]

    answer = await client.post("/v1/meterReadings", content=unannounced())  # type: ignore[arg-type]
    assert_problem(answer, 413, f"longer than {LIMIT_BODY_BYTES} bytes")
    assert (await client.get("/healthz")).status_code == 200


async def test_another_name_for_this_machine_is_refused(store: Store) -> None:
    async with client_of(create_app(store, hosts=["meters.example"])) as client:
        near = ("127.0.0.1.evil.example", "localhost.evil.example:80", "localhost:80@evil.example", "[::1]evil.example")
        for host in ("evil.example", "", "[::2]", *near):
            answer = await client.get("/v1/meters", headers={"Host": host})
            assert_problem(answer, 421, "The Host header names")
        for host in ("localhost:9", "127.0.0.1", "[::1]:8080", "meters.example", "LOCALHOST"):
            assert (await client.get("/v1/meters", headers={"Host": host})).status_code == 200


async def test_the_page_of_another_site_cannot_send_anything(store: Store, client: httpx.AsyncClient) -> None:
    await put(store, reading("m1", datetime.now(UTC), value("P", "1")))
    own = str(client.base_url).rstrip("/")
    for headers in ({"Origin": "https://evil.example"}, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}):
        answer = await client.patch("/v1/meters/m1", json={"claimed": True}, headers=headers)
        assert_problem(answer, 403, "comes from the page of another site")
    form = await client.patch("/v1/meters/m1", content=b"claimed=1", headers={"Content-Type": "text/plain"})
    assert_problem(form, 415, "The body is text/plain; send JSON")
    assert (await client.get("/v1/meters/m1")).json()["claimed"] is False
    headers = {"Origin": own, "Sec-Fetch-Site": "same-origin"}
    assert (await client.patch("/v1/meters/m1", json={"claimed": True}, headers=headers)).json()["claimed"] is True


async def test_every_answer_has_the_security_headers(client: httpx.AsyncClient) -> None:
    for path in ("/", "/v1/meters", "/nothing", "/static/app.js"):
        headers = (await client.get(path)).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["referrer-policy"] == "no-referrer"
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


async def test_a_query_that_takes_too_long_is_a_problem(store: Store) -> None:
    async with client_of(create_app(store, timeout_s=0.000001)) as client:
        answer = await client.post("/v1/meterReadings", json={})
    assert_problem(answer, 503, "narrow the time range, name meters, or use the bulk download")


async def test_a_database_that_is_away_is_a_problem_and_the_page_still_comes(database_dsn: str) -> None:
    async with await Store.connect(database_dsn) as store:
        app = create_app(store)
        async with client_of(app) as client:
            await store.close()
            assert_problem(await client.get("/readyz"), 503, "The database does not answer; nothing is lost")
            assert (await client.get("/")).status_code == 200
            assert (await client.get("/healthz")).status_code == 200


async def test_a_database_without_our_tables_is_a_problem(database_dsn: str) -> None:
    async with await Store.connect(database_dsn) as store, client_of(create_app(store)) as client:
        assert_problem(await client.get("/readyz"), 503, "The database refuses us; run `meterway doctor`")


async def test_a_defect_is_a_problem_without_internals(store: Store) -> None:
    def defective() -> str:
        raise RuntimeError("secret internals")

    async with client_of(create_app(store, ready=defective)) as client:
        answer = await client.get("/readyz")
    assert_problem(answer, 500, "This is a defect of Meterway")
    assert "secret" not in answer.text


async def test_the_server_listens_on_loopback_only_without_tls(store: Store) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.1", "meters.example"):
        with pytest.raises(SetupError, match=r"cannot listen on .* without TLS"):
            async with serving(create_app(store), host=host):
                pass


async def test_a_taken_port_is_named(store: Store) -> None:
    async with serving(create_app(store)) as url:
        with pytest.raises(SetupError, match="choose another port"):
            async with serving(create_app(store), port=int(url.rpartition(":")[2])):
                pass


async def test_the_openapi_document_is_whole(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    assert document["openapi"].startswith("3.1")
    assert document["info"]["version"]
    text = json.dumps(document)
    schemas = document["components"]["schemas"]
    named = {part.split('"')[0] for part in text.split("#/components/schemas/")[1:]}
    assert named <= set(schemas)
    assert schemas["PropertyAnswer"]["properties"]["numericalValue"]["type"] == "number"
    for path, methods in document["paths"].items():
        for operation in methods.values():
            assert operation["summary"], path
            assert "default" in operation["responses"], path
            assert "422" not in operation["responses"], path
    body = document["paths"]["/v1/meterReadings"]["post"]["requestBody"]["content"]["application/json"]
    assert (await client.post("/v1/meterReadings", json=body["example"])).status_code == 200


async def test_many_queries_at_once_are_all_answered(client: httpx.AsyncClient) -> None:
    answers = await asyncio.gather(*(client.post("/v1/meterReadings", json={}) for _ in range(50)))
    assert {answer.status_code for answer in answers} == {200}
