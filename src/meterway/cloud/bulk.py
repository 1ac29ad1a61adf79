"""The bulk download of a query: its link and its parameters. Pure."""

from typing import Literal, NamedTuple, TypeAlias
from urllib.parse import urlencode

import msgspec

from meterway.cloud.query import PropertyFilter, ReadingQuery, Statement, bad_query, check_query

Kind: TypeAlias = Literal["ndjson", "csv", "signed"]

LIMIT_DIGITS = 15

PARAMETERS = {
    "format": "`ndjson` (a reading a line; the default), `csv` (a value a line) or `signed` (a signed payload a line, "
    "byte for byte as the adapter made it, for `meterway verify`)",
    "readingTimeStart": "RFC 3339 with zone",
    "readingTimeEnd": "RFC 3339 with zone",
    "maxRows": "The most readings",
    "meterIds": "May be repeated",
    "operationalProperties": "JSON, as in the body of the query",
}


class Bulk(NamedTuple):
    """What to download, and how to write it."""

    query: ReadingQuery
    kind: Kind


def bulk_link(query: ReadingQuery, kind: Kind = "ndjson") -> str:
    """Return path and query string of the download of all pages of ``query``."""
    given: list[tuple[str, str]] = [("format", kind)]
    for name, instant in (("readingTimeStart", query.reading_time_start), ("readingTimeEnd", query.reading_time_end)):
        if instant is not None:
            given.append((name, instant.isoformat()))
    if query.max_rows is not None:
        given.append(("maxRows", str(query.max_rows)))
    given.extend(("meterIds", meter_id) for meter_id in query.meter_ids)
    if query.operational_properties:
        encoded = msgspec.json.encode(query.operational_properties)
        given.append(("operationalProperties", encoded.decode()))
    return f"/v1/meterReadings/bulk?{urlencode(given)}"


def parse_bulk(parameters: list[tuple[str, str]]) -> Bulk:
    """Return the download that the parameters of a URL ask for; the inverse of ``bulk_link``.

    Raises:
        BadDataError: as ``parse_query``; a parameter that does not exist, or one twice.
    """
    given: dict[str, str] = {}
    meter_ids: list[str] = []
    for name, value in parameters:
        if name not in PARAMETERS:
            raise bad_query(f"Parameter `{name[:80]}` does not exist; there are {', '.join(PARAMETERS)}.")
        if name == "meterIds":
            meter_ids.append(value)
        elif name in given:
            raise bad_query(f"`{name}` is given twice; only `meterIds` may be repeated.")
        else:
            given[name] = value
    return Bulk(check_query(_convert(given, meter_ids)), _kind(given.get("format", "ndjson")))


def _convert(given: dict[str, str], meter_ids: list[str]) -> ReadingQuery:
    table: dict[str, object] = {"meterIds": meter_ids}
    for name in ("readingTimeStart", "readingTimeEnd"):
        if name in given:
            table[name] = given[name].replace(" ", "+")  # a bare "+" in a URL means a space
    if "maxRows" in given:
        table["maxRows"] = _integer(given["maxRows"])
    if "operationalProperties" in given:
        table["operationalProperties"] = _decode_properties(given["operationalProperties"])
    try:
        return msgspec.convert(table, ReadingQuery)
    except msgspec.ValidationError as error:
        raise bad_query(f"The parameters are not a query: {error}.") from error


def _kind(text: str) -> Kind:
    if text == "ndjson":
        return "ndjson"
    if text == "csv":
        return "csv"
    if text == "signed":
        return "signed"
    raise bad_query(f"`format` {text[:40]!r} does not exist; there are ndjson, csv and signed.")


def _integer(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= LIMIT_DIGITS):
        raise bad_query(f"`maxRows` {text[:40]!r} is not a number of readings.")
    return int(text)


def select_meters(query: ReadingQuery, after_meter_key: int, limit: int) -> Statement:
    """Return the statement for the next ``limit`` meters of the download: meter_key, in order."""
    return Statement(
        "select meter_key from meter where meter_key > $1::integer "
        "and (cardinality($2::text[]) = 0 or meter_id = any($2::text[])) order by meter_key limit $3::bigint",
        (after_meter_key, list(query.meter_ids), limit),
    )


def _decode_properties(text: str) -> object:
    try:
        return msgspec.to_builtins(msgspec.json.decode(text, type=tuple[PropertyFilter, ...]))
    except (msgspec.DecodeError, UnicodeError) as error:
        raise bad_query(f"`operationalProperties` must be a JSON array as in the POST body: {error}.") from error
