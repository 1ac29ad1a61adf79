"""Writing a device's credentials: the password, the certificate, and the table in its configuration."""

import re
import stat
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meterway.bus.bus import BrokerConfig
from meterway.core.config import dump_config
from meterway.core.enrolment import EnrolmentAnswer
from meterway.core.errors import SetupError
from meterway.durable_file import replace_file, write_private

_HEADER = re.compile(r"^\s*\[")


@dataclass(frozen=True, slots=True)
class Credentials:
    """What was written."""

    username: str
    password_file: Path
    ca_file: Path | None
    config: Path | None
    """None: ``table`` is to be put into one by hand."""
    table: str
    notes: Sequence[str]
    """What does not fit in the configuration, as sentences."""


def check_room(config: Path | None, table: str, *, replace: bool) -> None:
    """Look whether there is room for the credentials, before the code is used up.

    Raises:
        SetupError: the configuration cannot be read, or has the table already and is not to be replaced.
    """
    if config is None:
        return
    content = _parsed(_read(config), str(config))
    if _find(content, table) is not None and not replace:
        raise SetupError(f"{config} has [{table}] already: --replace overwrites it")


def write(answer: EnrolmentAnswer, url: str, config: Path | None, tables: Sequence[str]) -> Credentials:
    """Write password, certificate and tables; a configuration that cannot be edited safely is left as it is."""
    folder = (config.parent if config is not None else Path()).absolute()
    password_file = folder / f"{answer.username}.password"
    write_private(password_file, answer.password + "\n")
    ca_file = None
    if answer.ca_certificate is not None:
        ca_file = folder / f"{answer.username}.ca.pem"
        replace_file(ca_file, answer.ca_certificate.encode("ascii", "replace"))
    broker = BrokerConfig(
        url=answer.broker_url,
        username=answer.username,
        password_file=password_file,
        ca_file=ca_file if answer.broker_url.startswith("mqtts:") else None,
        cloud_url=url.rstrip("/") if "://" in url else f"https://{url.rstrip('/')}",
    )
    text = "\n".join(f"[{table}]\n{dump_config(broker)}" for table in tables)
    notes: list[str] = []
    if config is not None:
        edited = _with_tables(_read(config), broker, tables)
        if edited is None:
            notes.append(f"{config} could not be edited safely, and is as it was")
            config = None
        else:
            replace_file(config, edited.encode(), mode=stat.S_IMODE(config.stat().st_mode))
            notes += _misfits(answer, _parsed(edited, str(config)))
    return Credentials(answer.username, password_file, ca_file, config, text, notes)


def _with_tables(text: str, broker: BrokerConfig, tables: Sequence[str]) -> str | None:
    """Return a TOML text with the tables added or replaced, and nothing else changed; None if that cannot be."""
    wanted = tomllib.loads(text)
    for table in tables:
        text = _without(text, table).rstrip("\n") + f"\n\n[{table}]\n{dump_config(broker)}"
        *above, name = table.split(".")
        place = wanted
        for each in above:
            place = place.setdefault(each, {})
        place[name] = tomllib.loads(dump_config(broker))
    try:
        return text if tomllib.loads(text) == wanted else None
    except tomllib.TOMLDecodeError:
        return None


def _without(text: str, table: str) -> str:
    """Return a TOML text without the lines of a table, from its header to the next one."""
    header = re.compile(rf"^\s*\[\s*{re.escape(table)}\s*\]\s*(#.*)?$")
    kept, inside = [], False
    for line in text.splitlines():
        if _HEADER.match(line):
            inside = header.match(line) is not None
        if not inside:
            kept.append(line)
    return "\n".join(kept)


def _misfits(answer: EnrolmentAnswer, content: dict[str, object]) -> list[str]:
    """Return what the configuration says otherwise than the cloud."""
    notes = []
    place = content.get("concentrator", content)
    own_id = place.get("id") if isinstance(place, dict) else None
    if answer.kind == "concentrator" and own_id != answer.device_id:
        notes.append(f"`id` is {own_id!r}, but the device is enrolled as {answer.device_id!r}: set it to that")
    if answer.kind == "adapter":
        missing = sorted(set(_meter_ids(content)) - set(answer.meter_ids))
        if missing:
            notes.append(f"the device may not publish for {', '.join(missing)}: add them on the devices page")
    return notes


def _meter_ids(content: dict[str, object]) -> list[str]:
    """Return the ids of the meters in an adapter's configuration, and of those behind them."""
    meters = content.get("meters")
    found = []
    for meter in meters if isinstance(meters, list) else []:
        found += [each["id"] for each in (meter, *meter.get("channels", ())) if isinstance(each.get("id"), str)]
    return found


def _find(content: dict[str, object], table: str) -> object:
    place: object = content
    for name in table.split("."):
        place = place.get(name) if isinstance(place, dict) else None
    return place


def _read(config: Path) -> str:
    try:
        return config.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise SetupError(f"{config} cannot be read: {error}") from error


def _parsed(text: str, where: str) -> dict[str, object]:
    try:
        return tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise SetupError(f"{where}: not TOML: {error}") from error
