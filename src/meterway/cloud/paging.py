"""Pages of a query: by number, or by an opaque token that neither skips nor repeats. Pure."""

from base64 import urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from dataclasses import dataclass
from datetime import datetime
from hashlib import blake2b
from typing import Annotated
from uuid import UUID

import msgspec
from msgspec import UNSET, Meta

from meterway.cloud.query import (
    DEFAULT_PAGE_ROWS,
    LIMIT_NUMBERED_ROWS,
    YEARS,
    Cursor,
    ReadingQuery,
    bad_query,
)


class _Token(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    query: str
    rows: Annotated[int, Meta(ge=1, le=2**53)]
    reading_time: Annotated[datetime, Meta(tz=True)]
    meter_key: Annotated[int, Meta(ge=0, lt=2**31)]
    identifier: UUID


@dataclass(frozen=True, slots=True)
class Page:
    """Which part of the result a request asks for."""

    number: int
    size: int
    offset: int
    after: Cursor | None

    def rows_before(self) -> int:
        return self.after.rows if self.after else self.offset


def page_of(query: ReadingQuery) -> Page:
    """Return which rows ``query`` asks for.

    Raises:
        BadDataError: the token is of another query, or the page number lies too deep.
    """
    if query.page_token is not None:
        after = _decode_token(query)
        return Page(after.rows // query.page_size + 1, query.page_size, 0, after)
    number = 1 if query.page_number is UNSET else query.page_number
    offset = (number - 1) * query.page_size
    if offset + query.page_size > LIMIT_NUMBERED_ROWS:
        raise bad_query(
            f"`pageNumber` {number} of {query.page_size} rows lies beyond row {LIMIT_NUMBERED_ROWS}: "
            "go on with `nextPageToken`, narrow the query, or use `linkToBulk`."
        )
    return Page(number, query.page_size, offset, None)


def rows_of(query: ReadingQuery, page: Page) -> int:
    """Return how many readings the page may have: its size, or what is left of ``maxRows``."""
    if query.max_rows is None:
        return page.size
    return max(0, min(page.size, query.max_rows - page.rows_before()))


def encode_token(query: ReadingQuery, cursor: Cursor) -> str:
    """Return the opaque token that continues ``query`` after ``cursor``."""
    token = _Token(_fingerprint(query), cursor.rows, cursor.reading_time, cursor.meter_key, cursor.identifier)
    return urlsafe_b64encode(msgspec.json.encode(token)).rstrip(b"=").decode()


def _fingerprint(query: ReadingQuery) -> str:
    """Return what must not change between pages; the size of a page may."""
    fixed = msgspec.structs.replace(
        query, page_number=UNSET, page_size=DEFAULT_PAGE_ROWS, page_token=None, preferred_download="json"
    )
    return blake2b(msgspec.json.encode(fixed), digest_size=9).hexdigest()


def _decode_token(query: ReadingQuery) -> Cursor:
    text = query.page_token or ""
    try:
        token = msgspec.json.decode(urlsafe_b64decode(text + "=" * (-len(text) % 4)), type=_Token)
    except (Base64Error, ValueError, msgspec.DecodeError) as error:
        raise bad_query("`pageToken` is damaged: send `nextPageToken` of the page before, unchanged.") from error
    if token.query != _fingerprint(query):
        raise bad_query("`pageToken` belongs to another query: send it with the same filters, or start without it.")
    if token.reading_time.year not in YEARS:
        raise bad_query("`pageToken` is damaged: its time lies outside what is stored.")
    return Cursor(token.rows, token.reading_time, token.meter_key, token.identifier)
