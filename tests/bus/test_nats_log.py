"""Lines of nats-server (2.11), as it wrote them; and as somebody would like it to have written them."""

import logging

import pytest

from meterway.bus.nats_log import ROOM_BYTES, DiskWatch, level

HEAD = "[31293] 2026/11/23 21:58:00.660397 "
FULL = HEAD + "[ERR] Filestore [$MQTT_msgs] Critical write error: no space left on device"
STARTING = HEAD + "[INF] Starting nats-server"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (HEAD + "[INF] Server is ready", logging.DEBUG),
        (HEAD + "[WRN] Plaintext passwords detected, use nkeys or bcrypt", logging.DEBUG),
        (HEAD + "[WRN] Filestore [$MQTT_msgs] Stream state encountered internal inconsistency", logging.WARNING),
        (HEAD + "[WRN] Filestore [$MQTT_msgs] Recovering stream state from index errored: EOF", logging.INFO),
        (FULL, logging.WARNING),
        (HEAD + '[ERR] 127.0.0.1:1 - mid:2 - "" - unable to connect: authentication error', logging.DEBUG),
        (HEAD + '[ERR] 127.0.0.1:1 - mid:2 - "a" - Publish Violation - Subject "b"', logging.WARNING),
        (HEAD + '[ERR] 127.0.0.1:1 - mid:2 - "Plaintext passwords" - Publish Violation - Subject "b"', logging.WARNING),
        (HEAD + '[ERR] 127.0.0.1:1 - mid:2 - "Filestore [will rebuild" - Publish Violation', logging.WARNING),
        ("goroutine 1 [running]:", logging.DEBUG),
    ],
)
def test_a_line_is_as_loud_as_what_nats_says_itself(line: str, expected: int) -> None:
    assert level(line) == expected


def test_a_full_disk_needs_a_new_start_once_there_is_room() -> None:
    free_bytes = 0
    watch = DiskWatch(lambda: free_bytes)
    watch.take(FULL)
    assert not watch.wants_start, "a new start would not help while the disk is full"
    free_bytes = ROOM_BYTES
    assert watch.wants_start
    watch.take(STARTING)
    assert not watch.wants_start


@pytest.mark.parametrize(
    "said", ["Critical write error", "Filestore [x] Critical write error", "\\n" + FULL, FULL, "Starting nats-server"]
)
def test_what_a_client_says_is_not_taken_for_what_the_disk_does(said: str) -> None:
    watch = DiskWatch(lambda: ROOM_BYTES)
    line = f'{HEAD}[ERR] 127.0.0.1:37006 - mid:26 - "{said}" - invalid character in client ID "{said}"'
    watch.take(line)
    assert not watch.wants_start
    watch.take(FULL)
    watch.take(line)
    assert watch.wants_start
