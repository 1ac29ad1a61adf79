"""The pages of docs/meters: one for each family of meters, made of its file, and a list to find it by."""

import re
from collections.abc import Iterable, Iterator
from itertools import groupby

from meterway.cli.drivers import TESTED, every, needs, protocol_title, serial_line
from meterway.core.obis import Obis
from meterway.core.properties import Medium, catalogue
from meterway.core.reading import PhysicalMeterClass
from meterway.meter.family import Family, family_names, load_family

_LONGEST_VALUE = 40
_INTRODUCTION = """\
{count} families of meters. Plug it in and let `meterway detect` find yours; or find it here: by what you see at the
meter, by country, or by maker. A meter that is not listed may speak like one that is. `meterway drivers` prints this
list too, with the families of your own site and of installed packages; `meterway drivers kamstrup` searches it.

## By what you see

| at the meter | it is | look under |
|---|---|---|
| a round window with a metal ring (infrared) at the front; Germany, modern meters | an optical head that sends | \
[SML](#sml), [IEC 62056-21](#iec62056_21) |
| the same window; older meters, industry, heat meters | an optical head that must be asked | \
[IEC 62056-21](#iec62056_21), [DLMS, asked](#dlms-pull) |
| a socket RJ11 or RJ12 named P1, H1, HAN, I1 or customer interface | P1 text, or DLMS | [P1](#p1), \
[P1, encrypted](#p1-encrypted), [DLMS](#dlms) |
| a socket RJ45 named HAN (Norway, Sweden, Denmark) | DLMS over M-Bus | [DLMS](#dlms) |
| two terminals M-Bus, 24 and 25 | M-Bus, asked | [M-Bus](#mbus) |
| no port: a radio sign, `wM-Bus`, `OMS`, 868 MHz | radio telegrams | [wireless M-Bus](#wmbus) |
| terminals A, B or RS-485; an inverter with a meter in the network | Modbus | [Modbus](#modbus) |
| terminals S0+ and S0-, a reed contact, a flashing light | pulses | [pulses](#pulse) |
| a device with Wi-Fi that reads or measures: Shelly, Tasmota, HomeWizard, gPlug, ... | JSON | [JSON](#json) |

"Tested" says with what: captures of real meters, or only a telegram of our own making.
"""
_COUNTRIES = (
    "Austria",
    "Belgium",
    "Croatia",
    "Czechia",
    "Denmark",
    "Finland",
    "Germany",
    "Hungary",
    "Lithuania",
    "Luxembourg",
    "Netherlands",
    "Norway",
    "Poland",
    "Slovenia",
    "Sweden",
    "Switzerland",
)
_MAKERS = (
    "ABB",
    "Aidon",
    "Apator",
    "Carlo Gavazzi",
    "Diehl",
    "Dr. Neuhaus",
    "DZG",
    "EasyMeter",
    "Eastron",
    "eBZ",
    "Elster",
    "EMH",
    "EMU",
    "Engelmann",
    "ESPHome",
    "Fronius",
    "gPlug",
    "Hager",
    "Holley",
    "HomeWizard",
    "IME",
    "Iskraemeco",
    "Itron",
    "Kaifa",
    "Kamstrup",
    "Landis+Gyr",
    "Logarex",
    "NZR",
    "Pafal",
    "Qundis",
    "Sagemcom",
    "Schneider",
    "Sensus",
    "Shelly",
    "SHRDZM",
    "Siemens",
    "SMA",
    "SolarEdge",
    "Sontex",
    "Tasmota",
    "whatwatt",
    "Zenner",
    "ZPA",
)
"""Words in the families' titles by which people look for their meter."""


def meter_pages() -> dict[str, tuple[str, str]]:
    """Title and text of each page, by its path below docs/."""
    families = sorted((load_family(name) for name in family_names()), key=lambda each: (each.protocol, each.name))
    made = {f"meters/{family.name}.md": (family.title, _page(family)) for family in families}
    return {"meters/README.md": ("Which meter do you have?", _list(families)), **made}


def _list(families: list[Family]) -> str:
    lines = [_INTRODUCTION.format(count=len(families))]
    lines += ["## By country", "", *_found_by(_COUNTRIES, families), ""]
    lines += ["## By maker", "", *_found_by(_MAKERS, families), ""]
    for protocol, found in groupby(families, key=lambda family: family.protocol):
        lines += [f'<a id="{protocol}"></a>', "", f"## {protocol_title(protocol)}", ""]
        lines += ["| family | meters | needs | tested with |", "|---|---|---|---|"]
        lines += [f"| {_link(each)} | {each.title} | {needs(each)} | {TESTED[each.tested]} |" for each in found]
        lines.append("")
    return "\n".join(lines)


def _found_by(words: Iterable[str], families: list[Family]) -> Iterator[str]:
    yield "| | families |"
    yield "|---|---|"
    for word in words:
        whole = re.compile(rf"(?<!\w){re.escape(word)}(?!\w)")
        found = [_link(family) for family in families if whole.search(family.title)]
        if not found:
            raise ValueError(f"no family's title names {word}")
        yield f"| {word} | {', '.join(found)} |"


def _link(family: Family) -> str:
    return f"[{family.name}]({family.name}.md)"


def _page(family: Family) -> str:
    facts = (
        ("family", f"`{family.name}`"),
        ("protocol", protocol_title(family.protocol)),
        ("readings", f"{'asked' if family.is_asked else 'sent by itself'}, {every(family.interval_s)}"),
        ("serial line", serial_line(family)),
        ("needs", needs(family)),
        ("clock", family.timezone),
        ("tested with", TESTED[family.tested]),
    )
    lines = ["[All meters](README.md)", "", "| | |", "|---|---|"]
    lines += [f"| {title} | {text} |" for title, text in facts if text]
    lines.append("")
    for heading, text in family.guide.sections() if family.guide else ():
        lines += [f"## {heading}", "", text, ""]
    lines += ["## Configuration", "", "`meterway detect` writes it; or by hand, in an adapter's TOML file:", ""]
    lines += ["```toml", *_configuration(family), "```", ""]
    if family.sample is not None:
        lines += ["## What it offers", "", "From the telegram that tests it:", ""]
        lines += ["| OBIS | value | unit | property |", "|---|---|---|---|", *_values(family), ""]
    return "\n".join(lines)


def _configuration(family: Family) -> Iterator[str]:
    yield "[[meters]]"
    yield 'id = "..." # a UUID of your own making: uuidgen'
    yield f'family = "{family.name}"'
    if family.protocol in ("mbus", "wmbus"):
        yield 'address = "..." # the number on the meter'
    elif family.protocol == "modbus":
        yield 'address = "1"'
    elif family.json is not None and family.json.several:
        yield 'address = "..." # what the documents name the meter'
    if "encryption-key" in family.secrets:
        yield 'key_file = "/etc/meterway/meter.key"'
    if family.dlms_ask is not None and family.dlms_ask.security == "password":
        yield 'password_file = "/etc/meterway/meter.password"'
    yield ""
    yield "[meters.source]"
    yield from _source(family)
    if family.protocol == "pulse":
        yield from ("", "[meters.pulse]", 'file = "/var/lib/meterway/pulses.json" # where the count is kept')
        yield 'start = "12345.678" # what the dial shows now'


def _source(family: Family) -> Iterator[str]:
    if family.protocol == "json":
        yield 'type = "mqtt" # or "http", "process"; see docs/config.md'
        yield 'topic = "..."'
    elif not serial_line(family):
        yield 'type = "tcp"'
        yield 'host = "192.0.2.20"'
        yield f"port = {502 if family.protocol == 'modbus' else 4059}"
    else:
        yield 'type = "serial" # or "tcp", "rfc2217", ...; see docs/config.md'
        yield 'port = "/dev/serial/by-id/..."'


def _values(family: Family) -> Iterator[str]:
    medium = _medium_of(family.meter_class)
    for code, value, unit, *_ in family.sample.registers if family.sample else ():
        rule = family.obis.get(code)
        known = catalogue().for_obis(Obis.parse(code), medium)
        property_id = rule.property if rule and rule.property else known.property_id if known else ""
        shown = value if len(value) <= _LONGEST_VALUE else f"{value[:_LONGEST_VALUE]}..."
        cells = (f"`{code}`", shown.replace("|", "\\|"), unit, f"`{property_id}`" if property_id else "")
        yield f"| {' | '.join(cells)} |"


def _medium_of(meter_class: PhysicalMeterClass) -> Medium:
    return next(medium for medium in Medium if medium.meter_class is meter_class)
