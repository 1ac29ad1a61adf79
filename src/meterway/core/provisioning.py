"""SmartMeterAdapterConfig: the file that the cloud writes for an adapter, in the words of the public specification.

    {"MeterIndividualId": "...",
     "OperationalPropertyMapping": [{"from": "1-0:1.8.0", "to": "OBIS_1.8.0"},
                                    {"from": "3", "to": "SITE_household_size"}],
     "CloudAuth": {"username": "...", "password": "...", "token": "..."}}

``from`` is an OBIS code in any written form, or a fixed value; ``to`` is a property of the catalogue. The file holds
secrets: whoever writes it to a disk makes it readable by its owner only.
"""

import re

import msgspec

from meterway.core.errors import BadDataError, SetupError
from meterway.core.obis import Obis
from meterway.core.properties import catalogue
from meterway.core.topics import check_id

LIMIT_BYTES = 1024 * 1024
"""A longer file is refused unread."""

_NUMBER = re.compile(r"[0-9]+\.[0-9]+")


class OperationalPropertyMapping(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of the meter, or one fixed value, and the property that it is."""

    source: str = msgspec.field(name="from")
    """An OBIS code in any written form; anything else is the value itself."""
    to: str
    """A property of the catalogue."""

    @property
    def obis(self) -> Obis | None:
        """The code that is mapped; None where ``source`` is a fixed value. ``1.8`` is a number, ``1.8.0`` a code."""
        try:
            return None if _NUMBER.fullmatch(self.source) else Obis.parse(self.source)
        except BadDataError:
            return None


class CloudAuth(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, omit_defaults=True):
    """What the adapter proves its authenticity with; a name and a password, or a token."""

    username: str | None = None
    password: str | None = None
    token: str | None = None

    def __repr__(self) -> str:
        """Show that there are secrets, never which."""
        given = [name for name in self.__struct_fields__ if getattr(self, name) is not None]
        return f"CloudAuth({', '.join(f'{name}=***' for name in given)})"


class SmartMeterAdapterConfig(
    msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="pascal", omit_defaults=True
):
    """Everything an adapter needs to know about one meter."""

    meter_individual_id: str
    operational_property_mapping: tuple[OperationalPropertyMapping, ...] = ()
    """Empty: all that the catalogue knows is mapped."""
    cloud_auth: CloudAuth | None = None


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(SmartMeterAdapterConfig)


def encode(config: SmartMeterAdapterConfig) -> bytes:
    """Return the content of the file."""
    return msgspec.json.format(_encoder.encode(config), indent=2)


def decode(data: bytes, *, where: str) -> SmartMeterAdapterConfig:
    """Return the configuration in a file; ``where`` names it in errors.

    Raises:
        SetupError: too long, not JSON of that shape, an id that cannot stand in a topic, a property that the
            catalogue does not have or that is mapped twice, a password without a name.
    """
    if len(data) > LIMIT_BYTES:
        raise SetupError(f"{where}: {len(data)} bytes; a SmartMeterAdapterConfig has at most {LIMIT_BYTES}")
    try:
        config = _decoder.decode(data)
        check_id(config.meter_individual_id, "MeterIndividualId")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, BadDataError) as error:
        raise SetupError(f"{where}: not a SmartMeterAdapterConfig: {error}") from error
    _check_mapping(config, where)
    auth = config.cloud_auth
    if auth is not None and (auth.username is None) != (auth.password is None):
        raise SetupError(f"{where}: CloudAuth needs username and password together, or a token")
    return config


def _check_mapping(config: SmartMeterAdapterConfig, where: str) -> None:
    seen: set[str] = set()
    for position, mapping in enumerate(config.operational_property_mapping):
        found = catalogue().find(mapping.to)
        place = f"{where}: OperationalPropertyMapping[{position}]"
        if found is None:
            raise SetupError(f"{place}: no operational property {mapping.to[:80]!r}; docs/properties.md lists them")
        if found.property_id in seen:
            raise SetupError(f"{place}: {found.property_id} is mapped for the second time")
        seen.add(found.property_id)
