"""Hides who speaks in JSON documents. Pure.

Hidden are texts with digits, under names that say so (id, mac, ssid, ...) all texts, and places. Kept are numbers,
times and the names of values.
"""

import re
from typing import Final

from meterway.adapter.doctor.hide.pseudonyms import Pseudonyms

_TEXT: Final = re.compile(rb'(?:"([^"\\]{1,64})"\s*:\s*)?(?:"((?:[^"\\]|\\.)*)"(?!\s*:)|(-?[0-9][0-9.eE+-]*))')
_WHOSE: Final = re.compile(rb"(?i)ssid|name|host|mail|user|owner|address|place|location")
_WHERE: Final = re.compile(rb"(?i)(?:^|_)(?:lat|lon|lng|latitude|longitude|serial|sn|phone)$")
_RUN: Final = re.compile(rb"(?<![0-9A-Za-z])(?![0-9]+\.[0-9])(?<![.:\[, ])[0-9A-Za-z]{6,}")
"""Not a number in a document within a text."""
_WORD: Final = re.compile(rb"[0-9A-Za-z]+")
_DIGIT: Final = re.compile(rb"[0-9]")
_TIME: Final = re.compile(rb"[0-9]{4}-[0-9]{2}-[0-9]{2}.*|[0-9]{6,14}[SW]?|[0-9.:+-]+", re.DOTALL)
_KEY_RUN: Final = re.compile(rb"(?=(?:[A-Za-z]*[0-9]){5})[0-9A-Za-z]{8,}")
_KEY: Final = re.compile(rb'"((?:[^"\\]|\\.)*)"(?=\s*:)')


def hide_json(data: bytes, pseudonyms: Pseudonyms) -> bytes:
    """Return the documents, of the same length, with texts that may name somebody replaced."""

    def hide(found: re.Match[bytes]) -> bytes:
        key, text, number = found[1] or b"", found[2], found[3]
        start = found.start()
        if text is not None:
            new, at, end = _text(key, text, pseudonyms), found.start(2) - start, found.end(2) - start
        elif number is not None and _WHERE.search(key):
            new, at, end = pseudonyms.text(number), found.start(3) - start, found.end(3) - start
        else:
            return found[0]
        return found[0][:at] + new + found[0][end:]

    data = _TEXT.sub(hide, data)
    return _KEY.sub(lambda key: _KEY_RUN.sub(lambda run: pseudonyms.text(run[0]), key[0]), data)


def _text(key: bytes, text: bytes, pseudonyms: Pseudonyms) -> bytes:
    if _WHOSE.search(key):
        return _WORD.sub(lambda word: pseudonyms.text(word[0]), text)
    if _TIME.fullmatch(text):
        return text
    return _RUN.sub(lambda run: pseudonyms.text(run[0]) if _DIGIT.search(run[0]) else run[0], text)
