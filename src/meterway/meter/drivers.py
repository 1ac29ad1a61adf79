"""Meterway's own drivers. Each has its entry point in pyproject.toml, as a driver of anybody's has."""

from collections.abc import Callable
from typing import Final

from meterway.core.errors import SetupError
from meterway.core.obis import Obis
from meterway.meter.addressed import AddressedDecoder
from meterway.meter.codec import Decoder
from meterway.meter.dlms import DlmsDecoder
from meterway.meter.dlms_access import DlmsAccess, Objects
from meterway.meter.dlms_master import DlmsMaster
from meterway.meter.driver import Driver, MeterSetup
from meterway.meter.iec62056_21 import ReadoutDecoder
from meterway.meter.iec62056_21_access import Access, Readout, Registers
from meterway.meter.iec62056_21_master import Iec62056Master
from meterway.meter.json_documents import JsonDecoder
from meterway.meter.mbus import MbusDecoder
from meterway.meter.mbus_address import parse_address
from meterway.meter.mbus_master import MbusMaster, MbusMeter
from meterway.meter.modbus_map import Framing
from meterway.meter.modbus_master import ModbusMaster
from meterway.meter.p1 import P1Decoder
from meterway.meter.p1_encrypted import EncryptedP1Decoder
from meterway.meter.sml import SmlDecoder
from meterway.meter.wmbus import WmbusDecoder

_FRAMINGS: Final[dict[str, Framing | None]] = {"": None, "rtu": "rtu", "tcp": "tcp"}


def _addressed(make: Callable[[MeterSetup], Decoder]) -> Callable[[MeterSetup], Decoder]:
    """Return how to make the decoder of a protocol whose meters do not know who shares their link."""

    def decoder(setup: MeterSetup) -> Decoder:
        made = make(setup)
        return AddressedDecoder(made, setup.address) if setup.address else made

    return decoder


def _dlms(setup: MeterSetup) -> Decoder:
    push = setup.family.push
    return DlmsDecoder(setup.zone, keys=setup.keys, lists=setup.lists or (() if push is None else (push,)))


def _iec62056_21_master(setup: MeterSetup) -> Iec62056Master:
    access = Access.of(setup.family, address=setup.address, password=setup.password)
    sign_on = setup.family.sign_on
    task = Registers(sign_on.registers) if sign_on and sign_on.registers else Readout()
    return Iec62056Master(setup.zone, access, task)


def _mbus_master(setup: MeterSetup) -> MbusMaster:
    baud = setup.family.line.baud
    return MbusMaster([MbusMeter(parse_address(setup.address), baud=baud)], setup.zone, baud=baud)


def _dlms_master(setup: MeterSetup) -> DlmsMaster:
    access = DlmsAccess.of(setup.family, address=setup.address, password=setup.password, keys=setup.keys)
    objects = tuple((Obis.parse(code), class_id) for code, class_id in access.ask.objects)
    return DlmsMaster(access, Objects(objects), setup.zone)


def _json(setup: MeterSetup) -> JsonDecoder:
    if setup.family.json is None:
        raise SetupError(f"family {setup.family.name!r} does not say where values stand: its file has no [json] table")
    return JsonDecoder(setup.family.json, setup.zone, setup.address)


def _modbus_master(setup: MeterSetup) -> ModbusMaster:
    """Make the master; behind the unit id may stand ``/tcp`` or ``/rtu``, where the link's framing is not the family's."""
    modbus = setup.family.modbus
    if modbus is None:
        raise SetupError(f"family {setup.family.name!r} has no register map: its file has no [modbus] table")
    unit, _, suffix = setup.address.partition("/")
    if suffix not in _FRAMINGS:
        raise SetupError(f"address {setup.address[:40]!r}: behind the unit id comes nothing, /rtu or /tcp")
    framing = _FRAMINGS[suffix] or modbus.framing
    return ModbusMaster(modbus, unit_id=modbus.unit(unit, framing), framing=framing, line=setup.family.line)


DLMS: Final = Driver(protocol="dlms", title="DLMS/COSEM", decoder=_addressed(_dlms), master=_dlms_master)
IEC62056_21: Final = Driver(
    protocol="iec62056_21",
    title="IEC 62056-21, optical head",
    decoder=_addressed(lambda setup: ReadoutDecoder(setup.zone, quirks=setup.family.quirks)),
    master=_iec62056_21_master,
)
JSON: Final = Driver(protocol="json", title="JSON over MQTT, HTTP or from a program", decoder=_json)
MBUS: Final = Driver(
    protocol="mbus",
    title="M-Bus on wire",
    decoder=_addressed(lambda setup: MbusDecoder(setup.zone)),
    master=_mbus_master,
)
MODBUS: Final = Driver(protocol="modbus", title="Modbus RTU and TCP", master=_modbus_master)
P1: Final = Driver(protocol="p1", title="DSMR P1 port", decoder=_addressed(lambda setup: P1Decoder(zone=setup.zone)))
P1_ENCRYPTED: Final = Driver(
    protocol="p1-encrypted",
    title="DSMR P1 port, encrypted",
    decoder=_addressed(lambda setup: EncryptedP1Decoder(setup.zone, keys=setup.keys)),
)
SML: Final = Driver(
    protocol="sml",
    title="Smart Message Language push",
    decoder=_addressed(lambda setup: SmlDecoder(quirks=setup.family.quirks)),
)
WMBUS: Final = Driver(
    protocol="wmbus",
    title="Wireless M-Bus (OMS)",
    decoder=lambda setup: WmbusDecoder(setup.zone, keys=setup.keys, address=setup.address, quirks=setup.family.quirks),
)
