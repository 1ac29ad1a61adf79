"""What is read of a meter in a DLMS association, and the telegrams that become of it.

    data               class 1    value 2
    register           class 3    value 2, scaler and unit 3
    extended register  class 4    value 2, scaler and unit 3, time of the value 5
    demand register    class 5    current average 2, last average 3, scaler and unit 4, time of it 6
    profile generic    class 7    rows 2, columns 3, period in seconds 4
    clock              class 8    time 2
    association        class 15   list of objects 2

Source: IEC 62056-6-2. Values become registers as in a push that describes its objects (``dlms_layout``).
"""

from collections.abc import Sequence
from datetime import datetime, timedelta, tzinfo
from typing import Final, NamedTuple

from meterway.core.errors import BadDataError, SetupError
from meterway.core.obis import Obis
from meterway.meter import axdr_write as write
from meterway.meter.axdr import Element, GrammarError
from meterway.meter.codec import CodecError
from meterway.meter.dlms_access import Entries, Objects, Profile, Task
from meterway.meter.dlms_apdu import Attribute, Refusal, Unserved
from meterway.meter.dlms_ask import READABLE
from meterway.meter.dlms_client import Client, Talk, Value
from meterway.meter.dlms_layout import CLOCK, Data, clock, read_layout
from meterway.meter.telegram import Register, Telegram

PROTOCOL: Final = "dlms-pull"

LIMIT_OBJECTS: Final = 200
"""So many of a meter's own list of objects are read; those behind them are left out, and that is reported."""
LIMIT_COLUMNS: Final = 64
"""The widest load profile that is read."""

_DATA, _REGISTER, _EXTENDED, _DEMAND, _PROFILE, _CLOCK, _ASSOCIATION = 1, 3, 4, 5, 7, 8, 15
_VALUE, _SCALER_UNIT, _CAPTURE_TIME = 2, 3, 5
"""Attributes of an extended register; those of other classes are given the same meaning."""
_LAST_AVERAGES: Final = frozenset({5, 15, 25})
"""Groups D of averages of the period before."""
_NAMES: Final = (Obis(0, 0, 96, 1, 0), Obis(0, 0, 42, 0, 0))
_DEVICE_NAME: Final = Obis(0, 0, 42, 0, 0)
"""The logical device name, which every meter has and everybody may read."""
_IDENTITIES: Final = frozenset({(42, 0, 0), (96, 1, 0)})
_ELECTRICITY_TO_WATER: Final = range(1, 10)
_OBJECT_PARTS: Final = 3
_COLUMN_PARTS: Final = 4
_BY_RANGE, _BY_ENTRY = 1, 2


class _Part(NamedTuple):
    """An attribute, and what it is for its object: value, scaler and unit, or time."""

    attribute: Attribute
    role: int


def read(client: Client, task: Task, objects: Sequence[tuple[Obis, int]], zone: tzinfo) -> Talk[None]:
    """Yield the telegrams of a task; ``objects`` stand in where it names none.

    Raises:
        SetupError: nothing of what was asked for can be read.
        TransientError: as ``Client.get``.
    """
    name = yield from client.get(Attribute(_DATA, _DEVICE_NAME, _VALUE))
    meter = _text(name) or client.title
    if isinstance(task, Objects):
        yield from _read_objects(client, task.objects or objects, meter, zone)
    else:
        yield from _ProfileReader(client, task, meter, zone).read()


def _read_objects(client: Client, objects: Sequence[tuple[Obis, int]], meter: str, zone: tzinfo) -> Talk[None]:
    objects = objects or (yield from _own_objects(client))
    parts = [_parts(obis, class_id) for obis, class_id in objects]
    values = iter((yield from client.get_all([part.attribute for each in parts for part in each])))
    registers: list[Register] = []
    time: datetime | None = None
    refused: list[str] = []
    for each in parts:
        found = [(part, next(values)) for part in each]
        value = found[0][1]
        if isinstance(value, Refusal | Unserved):
            refused.append(f"the meter refuses to read {found[0][0].attribute}: {value}")
            yield CodecError(refused[-1], reason="refused", data=b"")
            continue
        data = yield from _understood(found, zone)
        registers += data.registers
        time = time or data.time
    if not registers:
        why = refused[0] if refused else "they hold nothing, or what is not understood"
        raise SetupError(f"none of {len(parts)} objects can be read as this client; {why}")
    yield Telegram(PROTOCOL, tuple(registers), b"", _named(registers) or meter, time)


def _own_objects(client: Client) -> Talk[list[tuple[Obis, int]]]:
    """Return what is worth reading of the meter's own list of objects: registers, clock and identities.

    Raises:
        SetupError: the meter does not give its list.
    """
    listed = yield from client.get(Attribute(_ASSOCIATION, Obis(0, 0, 40, 0, 0), _VALUE))
    found = [each for each in map(_object, listed) if each] if isinstance(listed, list) else []
    if not found:
        why = f": {listed}" if isinstance(listed, Refusal | Unserved) else ""
        raise SetupError(
            f"the meter does not tell which objects it has{why}; the family's file names them by `objects`"
        )
    if len(found) > LIMIT_OBJECTS:
        text = f"the meter has {len(found)} objects with a value; the first {LIMIT_OBJECTS} are read"
        yield CodecError(text, reason="too-long", data=b"")
    return found[:LIMIT_OBJECTS]


def _object(listed: Element) -> tuple[Obis, int] | None:
    """Return an object of the list if it is read when nobody says what is."""
    if not isinstance(listed, list) or len(listed) < _OBJECT_PARTS:
        return None
    class_id, code = listed[0], listed[2]
    if (
        not isinstance(class_id, int)
        or class_id not in READABLE
        or not isinstance(code, bytes)
        or len(code) != len(CLOCK)
    ):
        return None
    obis = Obis.from_bytes(code)
    is_identity = obis.a == 0 and obis[2:5] in _IDENTITIES
    is_wanted = (
        is_identity if class_id == _DATA else obis == CLOCK if class_id == _CLOCK else obis.a in _ELECTRICITY_TO_WATER
    )
    return (obis, class_id) if is_wanted and obis.is_current else None


def _parts(obis: Obis, class_id: int) -> list[_Part]:
    """Return what must be read of an object, its value first."""
    value = _SCALER_UNIT if class_id == _DEMAND and obis.d in _LAST_AVERAGES else _VALUE
    parts = [_Part(Attribute(class_id, obis, value), _VALUE)]
    scaler = _scaler_unit(class_id)
    if scaler:
        parts.append(_Part(Attribute(class_id, obis, scaler), _SCALER_UNIT))
    if class_id in (_EXTENDED, _DEMAND):
        parts.append(_Part(Attribute(class_id, obis, 5 if class_id == _EXTENDED else 6), _CAPTURE_TIME))
    return parts


def _scaler_unit(class_id: int) -> int:
    """Return which attribute is scaler and unit; 0: there is none."""
    return {_REGISTER: 3, _EXTENDED: 3, _DEMAND: 4}.get(class_id, 0)


def _role(attribute: Attribute) -> int:
    """Return what a column of a load profile is for its object; 0: nothing that is known."""
    roles = {
        _DEMAND: {2: _VALUE, 3: _VALUE, 6: _CAPTURE_TIME},
        _EXTENDED: {2: _VALUE, 5: _CAPTURE_TIME},
    }
    return roles.get(attribute.class_id, {2: _VALUE}).get(attribute.number, 0)


def _understood(found: Sequence[tuple[_Part, Value]], zone: tzinfo) -> Talk[Data]:
    """Return what values mean; what they cannot mean is reported."""
    described: list[Element] = [[_PROFILE, bytes(CLOCK), _VALUE, 0]]
    values: list[Element] = []
    for part, value in found:
        described.append([_EXTENDED, bytes(part.attribute.obis), part.role, 0])
        values.append(None if isinstance(value, Refusal | Unserved) else value)
    try:
        return read_layout([described, *values], len(found) + 1, (), zone)
    except (GrammarError, BadDataError) as error:
        text = f"what was read of {found[0][0].attribute} has no meaning: {error}"
        yield CodecError(text, reason="bad-syntax", data=b"")
        return Data((), None)


class _ProfileReader:
    """Reads a load profile: columns, their scalers, the period, then the rows."""

    def __init__(self, client: Client, task: Profile | Entries, meter: str, zone: tzinfo) -> None:
        self._client = client
        self._task = task
        self._meter = meter
        self._zone = zone
        self._columns: list[Attribute] = []
        self._scalers: list[tuple[_Part, Value]] = []
        self._period_s = 0

    def read(self) -> Talk[None]:
        task = self._task
        yield from self._read_columns()
        selector, access = self._access()
        rows = yield from self._client.get(Attribute(_PROFILE, task.obis, _VALUE), selector, access)
        if not isinstance(rows, list):
            why = f": {rows}" if isinstance(rows, Refusal | Unserved) else ""
            raise SetupError(f"the meter does not give the rows of {task.obis}{why}")
        row: list[Element] = [None] * len(self._columns)
        time: datetime | None = None
        for number, sent in enumerate(rows, 1):
            if not isinstance(sent, list) or len(sent) != len(row):
                text = f"row {number} of {task.obis} does not have {len(row)} columns"
                yield CodecError(text, reason="bad-syntax", data=b"")
                continue
            time = self._time(sent, time)
            row = [before if value is None else value for before, value in zip(row, sent, strict=True)]
            if self._is_wanted(time):
                yield from self._telegram(row, time)

    def _read_columns(self) -> Talk[None]:
        task, client = self._task, self._client
        listed, period = yield from client.get_all([Attribute(_PROFILE, task.obis, number) for number in (3, 4)])
        columns = [_column(each) for each in listed] if isinstance(listed, list) else []
        self._columns = [column for column in columns if column is not None]
        if not self._columns or len(self._columns) != len(columns) or len(columns) > LIMIT_COLUMNS:
            why = f": {listed}" if isinstance(listed, Refusal | Unserved) else ""
            raise SetupError(f"the meter has no load profile {task.obis} with 1 to {LIMIT_COLUMNS} known columns{why}")
        self._period_s = period if isinstance(period, int) else 0
        scaled = [column for column in self._columns if _role(column) == _VALUE and _scaler_unit(column.class_id)]
        wanted = [column._replace(number=_scaler_unit(column.class_id)) for column in scaled]
        values = yield from client.get_all(wanted)
        self._scalers = [(_Part(each, _SCALER_UNIT), value) for each, value in zip(wanted, values, strict=True)]

    def _access(self) -> tuple[int, bytes]:
        """Return the selector, and what goes with it (IEC 62056-6-2, 4.3.6)."""
        task = self._task
        if isinstance(task, Entries):
            rows = write.uint32(task.first), write.uint32(task.last)
            return _BY_ENTRY, write.structure(*rows, write.uint16(1), write.uint16(0))
        clock_column = next((column for column in self._columns if column.class_id == _CLOCK), None)
        if clock_column is None:
            raise SetupError(
                f"the load profile {task.obis} has no clock, so no range of it can be read; ask by entries"
            )
        column = write.structure(
            write.uint16(_CLOCK),
            write.octets(bytes(clock_column.obis)),
            write.int8(clock_column.number),
            write.uint16(0),
        )
        limits = [write.octets(write.date_time(each.astimezone(self._zone))) for each in (task.start, task.end)]
        return _BY_RANGE, write.structure(column, *limits, write.array())

    def _time(self, row: Sequence[Element], before: datetime | None) -> datetime | None:
        """Return the time of a row; where the meter left it out, a period after the one before."""
        for column, value in zip(self._columns, row, strict=True):
            if column.class_id == _CLOCK and column.number == _VALUE:
                if isinstance(value, bytes):
                    return clock(value, self._zone)
                return before + timedelta(seconds=self._period_s) if before and self._period_s else None
        return None

    def _is_wanted(self, time: datetime | None) -> bool:
        """Tell whether a row is within the range, for some meters send more."""
        task = self._task
        return isinstance(task, Entries) or (time is not None and task.start <= time <= task.end)

    def _telegram(self, row: Sequence[Element], time: datetime | None) -> Talk[None]:
        found: list[tuple[_Part, Value]] = [
            (_Part(column, role), value)
            for column, value in zip(self._columns, row, strict=True)
            if column.class_id != _CLOCK and (role := _role(column))
        ]
        data = yield from _understood([*found, *self._scalers], self._zone)
        if data.registers:
            yield Telegram(PROTOCOL, data.registers, b"", self._meter, time)


def _column(listed: Element) -> Attribute | None:
    if not isinstance(listed, list) or len(listed) < _COLUMN_PARTS:
        return None
    class_id, code, number = listed[:3]
    if not isinstance(class_id, int) or not isinstance(code, bytes) or not isinstance(number, int):
        return None
    return Attribute(class_id, Obis.from_bytes(code), number) if len(code) == len(CLOCK) else None


def _text(value: Value) -> str:
    if isinstance(value, bytes):
        return value.decode("ascii") if value.isascii() and value.decode("ascii").isprintable() else value.hex().upper()
    return value if isinstance(value, str) else ""


def _named(registers: Sequence[Register]) -> str:
    """Return how the meter calls itself among its registers."""
    names = {register.obis: register.value for register in registers if isinstance(register.value, str)}
    return next((names[obis] for obis in _NAMES if names.get(obis)), "")
