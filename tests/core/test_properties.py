"""The catalogue: what it knows, under which names, and how it differs from the public specification."""

import json
import os
import tomllib
from importlib.resources import files
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meterway.core.errors import BadDataError
from meterway.core.obis import Obis
from meterway.core.properties import Catalogue, Kind, Medium, OperationalProperty, catalogue, medium_of_device_type
from meterway.core.reading import PhysicalMeterClass
from meterway.core.units import UNITS
from support.corpus import captures

SPECIFICATION = Path(
    os.environ.get("METERWAY_SPEC") or Path(__file__).resolve().parents[3] / "shared" / "spec",
)


def specification() -> list[dict[str, Any]]:
    if not SPECIFICATION.is_dir():
        pytest.skip("specification not present")
    return [
        entry
        for name in ("energy.json", "water.json")
        for entry in json.loads((SPECIFICATION / name).read_text())["properties"]
    ]


def corrections() -> list[dict[str, Any]]:
    text = (files("meterway.core") / "data" / "corrections.toml").read_text()
    return tomllib.loads(text)["correction"]  # type: ignore[no-any-return]


def obis_of(text: str, measures: Medium | PhysicalMeterClass = Medium.ELECTRICITY) -> str | None:
    found = catalogue().for_obis(Obis.parse(text), measures)
    return found.property_id if found else None


def test_every_id_of_the_specification_is_kept_or_its_removal_is_listed() -> None:
    ids = [entry["id"] for entry in specification()]
    assert len(ids) == 242
    missing = {property_id for property_id in ids if catalogue().find(property_id) is None}
    assert missing == set(next(entry for entry in corrections() if entry["here"] == "Left out.")["ids"])


def test_an_id_of_the_specification_is_the_id_here_but_for_the_broken_one() -> None:
    renamed = {
        entry["id"]: found.property_id
        for entry in specification()
        if (found := catalogue().find(entry["id"])) and found.property_id != entry["id"]
    }
    assert renamed == {"OBIS_16.8.": "OBIS_16.8.1"}


def test_units_are_those_of_the_specification_or_the_change_is_listed() -> None:
    for entry in specification():
        found = catalogue().find(entry["id"])
        if found is None:
            continue
        if entry.get("allowedUnits"):
            assert found.allowed_units == tuple(entry["allowedUnits"]), entry["id"]
        else:
            listed = [correction for correction in corrections() if entry["id"] in correction["ids"]]
            assert len(listed) == 1, entry["id"]
            assert found.allowed_units == tuple(listed[0].get("units", ())), entry["id"]


def test_descriptions_are_our_own() -> None:
    theirs = {entry["description"] for entry in specification() if "description" in entry}
    assert not theirs & {definition.description for definition in catalogue()}


def test_every_correction_names_an_id_of_the_specification_once() -> None:
    ids = [property_id for entry in corrections() for property_id in entry["ids"]]
    assert len(ids) == len(set(ids))
    assert set(ids) <= {entry["id"] for entry in specification()}


def test_export_is_export() -> None:
    definition = catalogue().require("OBIS_2.8.0")
    assert definition.description == "Active energy export (-A), all tariffs"
    assert definition.kind is Kind.REGISTER


@pytest.mark.parametrize(
    ("name", "property_id"),
    [
        ("OBIS_1.8.0", "OBIS_1.8.0"),
        ("1.8.0", "OBIS_1.8.0"),
        ("1.8", "OBIS_1.8.0"),
        ("1-0:1.8.0", "OBIS_1.8.0"),
        ("1-0:1.8.0*255", "OBIS_1.8.0"),
        ("OBIS_1-0:1.8.0*255", "OBIS_1.8.0"),
        ("1-1:1.8.0", "OBIS_1.8.0"),
        ("OBIS_16.8.", "OBIS_16.8.1"),
        ("C.1.0", "OBIS_C.1.0"),
        ("96.1.0", "OBIS_C.1.0"),
        ("0-0:96.1.0", "OBIS_C.1.0"),
        ("F.F", "OBIS_F.F.0"),
        ("C.1.4", "OBIS_C.1.4"),
        ("0-0:96.1.4", "OBIS_96.1.4"),
        ("17.0.0", "OBIS_17.0.0"),
        ("0-0:17.0.0", "OBIS_17.0.0"),
        ("1-0:1.8.0*97", "OBIS_1.8.0*97"),
        ("WATER_volume_of_water", "WATER_volume_of_water"),
        ("8-0:1.0.0", "WATER_volume_of_water"),
    ],
)
def test_a_property_is_found_under_every_name(name: str, property_id: str) -> None:
    assert catalogue().require(name).property_id == property_id


@pytest.mark.parametrize("name", ["", "OBIS_", "obis_1.8.0", "1.8.0*19", "0-1:24.2.1", "300.8.0", "x" * 100_000, "\0"])
def test_what_is_not_in_the_catalogue_is_not_found(name: str) -> None:
    assert catalogue().find(name) is None
    with pytest.raises(BadDataError, match="is not in the catalogue") as caught:
        catalogue().require(name)
    assert caught.value.reason == "unknown-property"
    assert len(str(caught.value)) < 120


@pytest.mark.parametrize(
    ("code", "property_id"),
    [
        ("1-0:1.8.0*255", "OBIS_1.8.0"),
        ("1-1:2.8.2*255", "OBIS_2.8.2"),
        ("1-65:1.8.0*255", None),
        ("1-0:1.8.0*19", None),
        ("1-0:1.8.0*96", "OBIS_1.8.0*96"),
        ("1-0:0.2.0*0", "OBIS_0.2.0"),
        ("0-0:96.14.0*255", "OBIS_96.14.0"),
        ("0-0:96.1.1*255", "OBIS_96.1.1"),
        ("1-0:96.1.0*255", "OBIS_C.1.0"),
        ("129-129:199.130.3*255", "OBIS_129-129:199.130.3"),
        ("0-3:96.3.10*255", "OBIS_0-3:96.3.10"),
        ("0-0:1.8.0*255", None),
        ("7-0:3.0.0*255", "GAS_volume"),
        ("9-0:1.0.0*255", "WATER_volume_of_water"),
        ("6-0:1.0.0*255", "HEAT_energy"),
        ("6-0:6.8.0*255", "HEAT_energy"),
        ("5-1:1.0.0*255", "COOLING_energy"),
    ],
)
def test_a_code_means_a_property(code: str, property_id: str | None) -> None:
    assert obis_of(code) == property_id


@pytest.mark.parametrize(
    ("code", "measures", "property_id"),
    [
        ("0-1:24.2.1", Medium.GAS, "GAS_volume_corrected"),
        ("0-1:24.2.3", Medium.GAS, "GAS_volume"),
        ("0-4:24.2.1", PhysicalMeterClass.GAS, "GAS_volume_corrected"),
        ("0-2:24.2.1", PhysicalMeterClass.WATER, "WATER_volume_of_water"),
        ("0-2:24.2.1", PhysicalMeterClass.HEAT, "HEAT_energy"),
        ("0-2:24.2.1", Medium.COOLING, "COOLING_energy"),
        ("0-1:96.1.0", Medium.GAS, "GAS_meter_serial_number"),
        ("0-1:96.1.1", Medium.WATER, "WATER_meter_serial_number"),
        ("0-1:24.2.1", Medium.ELECTRICITY, None),
        ("0-1:24.2.1", PhysicalMeterClass.ELECTRICITY, None),
        ("0-1:24.2.1", Medium.SITE, None),
        ("0-1:24.2.1*1", Medium.GAS, None),
    ],
)
def test_a_code_of_a_channel_means_what_the_meter_behind_it_measures(
    code: str, measures: Medium | PhysicalMeterClass, property_id: str | None
) -> None:
    assert obis_of(code, measures) == property_id


def test_device_types_are_those_of_the_standard() -> None:
    media = {3: "gas", 7: "water", 6: "water", 0x16: "water", 4: "heat", 12: "heat", 10: "cooling", 11: "cooling"}
    assert {code: medium_of_device_type(code) for code in media} == media
    assert medium_of_device_type(2) is Medium.ELECTRICITY
    assert medium_of_device_type(0x0F) is None


def test_a_medium_has_the_class_of_its_meters() -> None:
    assert Medium.COOLING.meter_class is PhysicalMeterClass.HEAT
    assert Medium.GAS.meter_class is PhysicalMeterClass.GAS
    assert Medium.SITE.meter_class is None


@pytest.mark.parametrize(
    ("property_id", "unit", "canonical"),
    [
        ("OBIS_1.8.0", "kWh", "kWh"),
        ("OBIS_1.8.0", "Wh", "Wh"),
        ("OBIS_1.8.0", "W*h", "Wh"),
        ("OBIS_1.8.0", "MJ", "MJ"),
        ("WATER_volume_of_water", "m³", "m3"),
        ("OBIS_13.7.0", None, None),
        ("OBIS_13.7.0", "", None),
        ("OBIS_13.7.0", "none", None),
        ("OBIS_17.0.0", "A", "A"),
        ("OBIS_17.0.0", "W", "W"),
    ],
)
def test_a_unit_of_the_right_dimension_is_accepted(property_id: str, unit: str | None, canonical: str | None) -> None:
    definition, checked = catalogue().check(property_id, unit)
    assert (definition.property_id, checked) == (property_id, canonical)


@pytest.mark.parametrize(
    ("property_id", "unit", "message"),
    [
        ("OBIS_1.8.0", "kW", r"'kW' is no unit of OBIS_1\.8\.0, which has kWh"),
        ("OBIS_1.8.0", "kvarh", r"'kvarh' is no unit of OBIS_1\.8\.0"),
        ("OBIS_1.8.0", None, r"OBIS_1\.8\.0 needs a unit: kWh"),
        ("OBIS_1.8.0", "", r"OBIS_1\.8\.0 needs a unit: kWh"),
        ("OBIS_13.7.0", "V", r"'V' is no unit of OBIS_13\.7\.0, which has none"),
        ("OBIS_1.8.0", "x" * 100_000, r"'x{16}' is no unit of OBIS_1\.8\.0"),
    ],
)
def test_a_unit_of_another_dimension_is_refused(property_id: str, unit: str | None, message: str) -> None:
    with pytest.raises(BadDataError, match=message) as caught:
        catalogue().check(property_id, unit)
    assert caught.value.reason == "bad-unit"


def test_every_entry_is_in_order() -> None:
    for definition in catalogue():
        assert definition.description[0].isupper(), definition
        assert not definition.description.endswith("."), definition
        assert set(definition.allowed_units) <= set(UNITS), definition
        assert (
            definition.kind not in (Kind.REGISTER, Kind.DEMAND)
            or definition.allowed_units
            or (definition.property_id == "HEAT_allocation_units")
        ), definition
        assert definition.kind is not Kind.TEXT or not definition.allowed_units, definition
        prefix = "OBIS" if definition.medium is Medium.ELECTRICITY else definition.medium.name
        assert definition.property_id.startswith(f"{prefix}_"), definition


def test_every_code_and_id_leads_back_to_its_property() -> None:
    for definition in catalogue():
        assert catalogue().find(definition.property_id) is definition
        for code in definition.obis:
            assert catalogue().for_obis(code) is definition
            assert catalogue().find(str(code)) is definition


def test_facts_about_a_site_name_no_person() -> None:
    site = [definition for definition in catalogue() if definition.medium is Medium.SITE]
    assert "SITE_household_size" in {definition.property_id for definition in site}
    assert {definition.kind for definition in site} == {Kind.STATIC}
    assert not [d for d in site if any(word in d.property_id for word in ("name", "address", "person", "mail"))]


def test_two_properties_cannot_share_an_id_or_a_code() -> None:
    def entry(property_id: str, *codes: str) -> tuple[OperationalProperty, tuple[str, ...]]:
        obis = tuple(map(Obis.parse, codes))
        return OperationalProperty(property_id, "Text", Kind.TEXT, Medium.SITE, obis=obis), ()

    with pytest.raises(ValueError, match="SITE_a is the id of SITE_a and of another property"):
        Catalogue([entry("SITE_a"), entry("SITE_a")])
    with pytest.raises(ValueError, match=r"7-0:3\.0\.0\*255 is claimed by SITE_b and by another property"):
        Catalogue([entry("SITE_a", "7-0:3.0.0"), entry("SITE_b", "7-0:3.0.0*255")])


def test_every_line_of_captured_p1_telegrams_has_a_property() -> None:
    texts = [capture.data.decode("latin-1") for capture in captures("p1")]
    if not texts:
        pytest.skip("corpus not present")
    codes = {line.partition("(")[0].strip() for text in texts for line in text.splitlines() if line[1:2] == "-"}
    assert len(codes) > 100
    unknown = {code for code in codes if not any(catalogue().for_obis(Obis.parse(code), medium) for medium in Medium)}
    assert not unknown


@given(st.text(max_size=80), st.none() | st.text(max_size=20))
def test_any_name_and_unit_are_known_or_bad_data(name: str, unit: str | None) -> None:
    try:
        definition, canonical = catalogue().check(name, unit)
    except BadDataError as error:
        assert error.reason in ("unknown-property", "bad-unit")  # noqa: PT017
    else:
        assert catalogue().check(definition.property_id, canonical) == (definition, canonical)
