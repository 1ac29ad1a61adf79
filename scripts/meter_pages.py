"""The pages of docs/meters: one for each family of meters, made of its file, and a list of them."""

from collections.abc import Iterator
from itertools import groupby

from meterway.core.obis import Obis
from meterway.core.properties import Medium, catalogue
from meterway.core.reading import PhysicalMeterClass
from meterway.meter.family import Family, family_names, load_family
from meterway.plugins import load_driver

_TESTED = {"sample": "a telegram of our own making", "captures": "captures of real meters"}
_LONGEST_VALUE = 40
_INTRODUCTION = """\
{count} families of meters; a family is a file of data (`src/meterway/meter/families`). A meter that is not listed may
speak like one that is: `meterway detect` tries all. `meterway drivers` prints this list, with the families of your own
site and of installed packages. "Tested" says with what: captures of real meters, or only a telegram of our own making.
"""
_CONFIGURATION = """\
## Configuration

`meterway detect` writes it; or by hand, in an adapter's TOML file:

```toml
[[meters]]
id = "..." # a UUID of your own making: uuidgen
family = "{name}"
{key}
[meters.source]
{source}
```
"""


def meter_pages() -> dict[str, tuple[str, str]]:
    """Title and text of each page, by its path below docs/."""
    families = sorted((load_family(name) for name in family_names()), key=lambda each: (each.protocol, each.name))
    made = {f"meters/{family.name}.md": (family.title, _page(family)) for family in families}
    return {"meters/README.md": ("Meters", _list(families)), **made}


def _list(families: list[Family]) -> str:
    lines = [_INTRODUCTION.format(count=len(families))]
    for protocol, found in groupby(families, key=lambda family: family.protocol):
        lines += [f"## {load_driver(protocol).title} (`{protocol}`)", "", "| family | meters | needs | tested with |"]
        lines.append("|---|---|---|---|")
        for family in found:
            link = f"[{family.name}]({family.name}.md)"
            lines.append(f"| {link} | {family.title} | {', '.join(family.secrets)} | {_TESTED[family.tested]} |")
        lines.append("")
    return "\n".join(lines)


def _page(family: Family) -> str:
    line = family.line
    way = "is asked" if family.is_asked else "sends by itself"
    about = (
        f"Family `{family.name}`: {load_driver(family.protocol).title}. The meter {way}, every {family.interval_s:g} s;"
        f" serial line {line.baud} baud {line.data_bits}{line.parity}{line.stop_bits}; clock of {family.timezone};"
        f" tested with {_TESTED[family.tested]}."
    )
    lines = [about, ""]
    guide = family.guide
    if guide is not None:
        for title, text in (
            ("What to order", guide.order),
            ("How to connect it", guide.connect),
            ("How to get its key or PIN", guide.unlock),
            ("Good to know", guide.notes),
        ):
            if text:
                lines += [f"## {title}", "", " ".join(text.split()), ""]
    key = 'key_file = "/etc/meterway/meter.key"\n' if "encryption-key" in family.secrets else ""
    lines.append(_CONFIGURATION.format(name=family.name, key=key, source=_source(family)))
    if family.sample is not None:
        lines += ["## What it offers", "", "From the telegram that tests it:", ""]
        lines += ["| OBIS | value | unit | property |", "|---|---|---|---|", *_values(family), ""]
    return "\n".join(lines)


def _source(family: Family) -> str:
    if family.protocol == "json":
        return 'type = "mqtt" # or "http", "process"; see docs/config.md\ntopic = "..."'
    return 'type = "serial" # or "tcp", "rfc2217", ...; see docs/config.md\nport = "/dev/serial/by-id/..."'


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
