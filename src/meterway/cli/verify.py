"""``meterway verify``: whether signed readings in a file are what an adapter signed; offline."""

import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import BinaryIO, Final

import click

from meterway.cli.output import json_option, print_json
from meterway.core import signatures
from meterway.core.errors import BadDataError, SetupError
from meterway.core.wire import LIMIT_PAYLOAD_BYTES
from meterway.delivery.intervals import Intervals

_LIMIT_METERS: Final = 100_000
_LIMIT_SHOWN: Final = 20
"""So many bad lines are shown to people; ``--json`` has all."""
_TOPIC: Final = re.compile(rb"[^ {]{1,500} (?=\{)")
"""What ``mosquitto_sub -v`` prints before a payload."""


@dataclass(slots=True)
class _Meter:
    """What the file says of one meter."""

    verified: int = 0
    repeated: int = 0
    """Readings whose number came before: recorded twice, or the adapter's spool was replaced and counts anew."""
    numbers: Intervals = field(default_factory=Intervals)

    @property
    def missing(self) -> int:
        """Sequence numbers between the first and the last that are not there."""
        return sum(after[0] - before[1] for before, after in pairwise(self.numbers))


@dataclass(frozen=True, slots=True)
class _Trusted:
    """Whose signatures count."""

    everywhere: frozenset[bytes]
    of_meter: dict[str, bytes]

    def has(self, public_key: bytes, meter_id: str) -> bool:
        pinned = self.of_meter.get(meter_id)
        return public_key == pinned if pinned is not None else public_key in self.everywhere


@click.command(short_help="Check the signatures of readings in a file, offline.")
@click.argument("files", type=click.Path(path_type=Path, dir_okay=False, allow_dash=True), nargs=-1, required=True)
@click.option(
    "--key",
    "keys",
    metavar="[METER_ID=]KEY",
    multiple=True,
    required=True,
    help="A public key to trust: for one meter, or for all that have none of their own. May be repeated. @FILE has one "
    "a line.",
)
@json_option
def verify(files: tuple[Path, ...], *, keys: tuple[str, ...], as_json: bool) -> None:
    """Check that signed readings are, byte for byte, what an adapter signed. Nothing is connected.

    FILES hold a payload a line: the download `/v1/meterReadings/bulk?format=signed`, or what `mosquitto_sub` prints
    (with or without -v); - reads standard input. The public key is in the adapter's log, in `meterway doctor`, and at
    `/v1/meters/METER_ID/signingKey`; take it from the device itself where you can.

    Of each meter it says how many readings hold, and how many sequence numbers between them are missing: what was
    taken out shows there. Exit code 1 unless every line holds.

    \b
    Examples:
      curl -f -H "Authorization: Bearer $(cat token)" \\
        'http://localhost:8080/v1/meterReadings/bulk?format=signed' > signed.ndjson
      meterway verify signed.ndjson --key tuRUhFeVOKvhMYs1QLrXgAlhpTTu5oLZalgiNiwRFws
      meterway verify signed.ndjson --key @keys.txt --json | jq 'select(.line)'
    """
    trusted = _trusted(keys)
    meters: dict[str, _Meter] = {}
    bad = 0
    for path in files:
        for line, payload in _lines(path):
            try:
                _check(payload, trusted, meters)
            except BadDataError as error:
                bad += 1
                if as_json:
                    print_json({"file": str(path), "line": line, "reason": error.reason, "error": str(error)})
                elif bad <= _LIMIT_SHOWN:
                    click.echo(f"{path}:{line}: {error}", err=True)
    _report(meters, bad, as_json=as_json)
    sys.exit(1 if bad or not meters else 0)


def _trusted(keys: tuple[str, ...]) -> _Trusted:
    """Return whom to trust.

    Raises:
        SetupError: what is given is no key.
    """
    everywhere: set[bytes] = set()
    of_meter: dict[str, bytes] = {}
    for text in (each for key in keys for each in _given(key)):
        meter_id, equals, key = text.rpartition("=")
        try:
            public_key = signatures.parse_key(key.strip())
        except BadDataError as error:
            raise SetupError(f"--key: {error}") from error
        if equals:
            of_meter[meter_id.strip()] = public_key
        else:
            everywhere.add(public_key)
    return _Trusted(frozenset(everywhere), of_meter)


def _given(key: str) -> list[str]:
    if not key.startswith("@"):
        return [key]
    try:
        return [line for line in Path(key[1:]).read_text().splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"--key {key}: the file cannot be read: {error}") from error


def _lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """Yield the payloads of a file with their line numbers, the topics before them left out.

    Raises:
        SetupError: it cannot be read.
    """
    if str(path) == "-":
        yield from _payloads(sys.stdin.buffer)
        return
    try:
        with path.open("rb") as file:
            yield from _payloads(file)
    except OSError as error:
        raise SetupError(f"{path}: cannot be read: {error.strerror}") from error


def _payloads(file: BinaryIO) -> Iterator[tuple[int, bytes]]:
    number = 0
    while line := file.readline(LIMIT_PAYLOAD_BYTES):
        number += 1
        payload = line.rstrip(b"\r\n")
        if payload:
            topic = _TOPIC.match(payload)
            yield number, payload[topic.end() :] if topic else payload


def _check(payload: bytes, trusted: _Trusted, meters: dict[str, _Meter]) -> None:
    """Check one payload, and count it.

    Raises:
        BadDataError: it does not hold, with the reason ``unsigned``, ``unknown-key``, ``bad-signature`` or
            ``too-many-meters``.
    """
    signed = signatures.split(payload)
    if signed is None:
        raise BadDataError("has no signature", reason="unsigned")
    meter_id, number = signed.subject()
    if not trusted.has(signed.public_key, meter_id):
        key = signatures.key_text(signed.public_key)
        raise BadDataError(f"meter {meter_id}: signed by {key}, which is not trusted", reason="unknown-key")
    if not signed.is_genuine():
        raise BadDataError(
            f"meter {meter_id}, number {number}: the signature does not hold: the reading was altered",
            reason="bad-signature",
        )
    if meter_id not in meters and len(meters) >= _LIMIT_METERS:
        raise BadDataError(f"more than {_LIMIT_METERS} meters; split the file", reason="too-many-meters")
    meter = meters.setdefault(meter_id, _Meter())
    if meter.numbers.add(number, number + 1):
        meter.verified += 1
    else:
        meter.repeated += 1


def _report(meters: dict[str, _Meter], bad: int, *, as_json: bool) -> None:
    for meter_id, meter in sorted(meters.items()):
        if as_json:
            found = {"verified": meter.verified, "repeated": meter.repeated, "missing": meter.missing}
            print_json({"meterId": meter_id, **found})
            continue
        again = f", {meter.repeated} more repeat a number" if meter.repeated else ""
        missing = f"{meter.missing} numbers between them are missing" if meter.missing else "no number is missing"
        click.echo(f"{meter_id}: {meter.verified} readings hold{again}; {missing}")
    if not as_json:
        click.echo(f"{bad} lines do not hold" if bad else "every line holds" if meters else "there are no readings")
