"""Which family a meter is of: every capture that decodes is told by its own family, or by none better."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache

import pytest

from meterway.adapter.choose import Candidate, candidates
from meterway.core.zones import find_zone
from meterway.meter.codec import Decoder
from meterway.meter.driver import MeterSetup
from meterway.meter.family import Family, Line, family_names, load_family
from meterway.meter.keys import NO_KEYS, Keys
from meterway.plugins import load_driver, make_decoder
from support.corpus import Capture, captures

FOLDERS = {
    "dlms_push": "dlms",
    "http_json": "json",
    "iec62056_21": "iec62056_21",
    "mbus": "mbus",
    "mqtt_json": "json",
    "p1": "p1",
    "p1_encrypted": "p1-encrypted",
    "sml": "sml",
    "wmbus": "wmbus",
}
"""Folders of captures that a decoder takes, and their protocol."""

SMARTY = Keys(bytes.fromhex("0123456789abcdef0123456789abcdef"))
"""Of the one encrypted P1 capture, whose origin's other captures state it."""

OWN = (
    ("dlms_push", r"aidon_no", "dlms-aidon"),
    ("dlms_push", r"aidon_se|aidon-example-2-segmented", "dlms-aidon-sweden"),
    ("dlms_push", r"kaifa_no", "dlms-kaifa-norway"),
    ("dlms_push", r"kaifa_se", "dlms-kaifa-sweden"),
    ("dlms_push", r"kamstrup", "dlms-kamstrup"),
    ("dlms_push", r"hdlc_(landis_gyr|lgz)_e450", "dlms-lg-e450-austria"),
    ("dlms_push", r"iskra550", "dlms-iskra-am550"),
    ("dlms_push", r"scs_iskra_am550", "dlms-iskra-am550-switzerland"),
    ("dlms_push", r"scs_lg_e360", "dlms-lg-e360-switzerland"),
    ("dlms_push", r"scs_lg_e450", "dlms-lg-e450-switzerland"),
    ("dlms_push", r"scs_lg_e570", "dlms-lg-e570-switzerland"),
    ("dlms_push", r"netz_noe", "dlms-kaifa-austria"),
    ("dlms_push", r"salzburg|tinetz", "dlms-kaifa-tirol"),
    ("dlms_push", r"shrdzm|homey_iskra-1", "dlms-iskra-austria"),
    ("dlms_push", r"egd|xt211", "dlms-czech"),
    ("http_json", r"homewizard_p1", "json-homewizard-p1"),
    ("iec62056_21", r"ESY5Q3D", "iec-easymeter-q3d"),
    ("iec62056_21", r"ebz_dd3", "iec-ebz-dd3"),
    ("iec62056_21", r"as1440", "iec-elster-as1440"),
    ("iec62056_21", r"emh_p\d\d", "iec-emh-lzqj"),
    ("iec62056_21", r"hager", "iec-hager-ehz"),
    ("iec62056_21", r"mt174", "iec-iskra-mt174"),
    ("iec62056_21", r"itron_ace", "iec-itron-ace3000"),
    ("iec62056_21", r"kamstrup_heat", "heat-kamstrup-multical"),
    ("iec62056_21", r"t550", "heat-landisgyr-uh50"),
    ("iec62056_21", r"2wr5", "heat-siemens-2wr5"),
    ("iec62056_21", r"zmf100", "iec-landisgyr-e350"),
    ("iec62056_21", r"zmd310|e450", "iec-landisgyr-e650"),
    ("iec62056_21", r"logarex", "iec-logarex-lk13"),
    ("iec62056_21", r"pafal", "iec-pafal-ec3"),
    ("mbus", r"kamstrup_382", "mbus-kamstrup-electricity"),
    ("mbus", r"multical", "mbus-kamstrup-multical"),
    ("mbus", r"(?i)pollu(stat|therm|sonic)", "mbus-sensus-pollutherm"),
    ("mbus", r"(?i)sensostar", "mbus-engelmann-sensostar"),
    ("mbus", r"(?i)cyble.*(14|cold_water)$|itron_bm", "mbus-itron-cyble-water"),
    ("mbus", r"cyble.*gas", "mbus-itron-cyble-gas"),
    ("mbus", r"(?i)itron_cf|integral", "mbus-itron-cf"),
    ("mbus", r"F96", "mbus-elster-f90"),
    ("mbus", r"els_tmpa", "mbus-elster-water"),
    ("mbus", r"iem3000", "mbus-schneider-iem3000"),
    ("mbus", r"nemo", "mbus-ime-nemo"),
    ("mbus", r"G350", "mbus-gas"),
    ("mbus", r"electricity-meter-1|emh_diz|nzr_dhz|gmc_emmod|EMU|berg_dz|FIN-", "mbus-electricity"),
    ("mbus", r"sontex|minocal|Minocal|svm|tch_|ultraheat|enercal|hyd$", "mbus-heat"),
    ("mbus", r"ram_modularis|siemens_water|GWF|aptmbusna|wehrle", "mbus-water"),
    ("mqtt_json", r"shelly_em1", "json-shelly-em"),
    ("mqtt_json", r"tasmota_energy", "json-tasmota-energy"),
    ("p1", r"FLU5|emucs", "p1-belgium"),
    ("p1", r"LGF5|ELL5", "p1-sweden"),
    ("p1", r"SAG5SAG", "p1-hungary"),
    ("p1", r"EST5", "p1-austria"),
    ("p1", r"TELEGRAM_V[45]_?2?$|dsmr5rs|4\.2|TWO_MBUS", "p1-generic"),
    ("p1", r"dsmr-2\.2|xmx", "p1-v2"),
    ("p1_encrypted", r"luxembourg", "p1-luxembourg-encrypted"),
    ("sml", r"^DZG", "sml-dzg"),
    ("sml", r"ED300L|EMH_eHZ", "sml-emh-ed300l"),
    ("sml", r"mME40", "sml-emh-mme40"),
    ("sml", r"EasyMeter", "sml-easymeter-q3a"),
    ("sml", r"HOLLEY", "sml-holley-dtz541"),
    ("sml", r"MT175", "sml-iskra-mt175"),
    ("sml", r"MT6[39]1", "sml-iskra-mt631"),
    ("sml", r"ITRON", "sml-itron-3hz"),
    ("sml", r"eBZ", "sml-ebz-dd3"),
    ("sml", r"DrNeuhaus", "sml-drneuhaus-smarty"),
    ("wmbus", r"apator162", "wmbus-apator-162"),
    ("wmbus", r"kamwater", "wmbus-kamstrup-multical21"),
)
"""Folder, what name or JSON of a capture say of its meter, and the family that such a meter has."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What came of one capture."""

    folder: str
    capture: Capture
    first: Candidate
    equal: tuple[str, ...]
    """The families that are as good as the first, itself included."""

    @property
    def own(self) -> set[str]:
        """Families that the capture's name and JSON say its meter is of."""
        said = f"{self.capture.name} {self.capture.about.get('meter', '')}"
        texts = (self.capture.name, said)
        return {
            family
            for folder, pattern, family in OWN
            if folder == self.folder and any(re.search(pattern, text) for text in texts)
        }


def keys_of(folder: str, capture: Capture) -> Keys:
    if folder == "p1_encrypted":
        return SMARTY
    key, authentication = (capture.about.get(name) for name in ("key", "auth_key"))
    if not isinstance(key, str) or len(key) != 32:  # some radio meters are told by a word, "NOKEY"
        return NO_KEYS
    return Keys(bytes.fromhex(key), bytes.fromhex(authentication) if authentication else None)


def choose(data: bytes, families: Sequence[Family], keys: Keys, line: Line | None = None) -> list[Candidate]:
    def decoder_of(family: Family) -> Decoder:
        return make_decoder(MeterSetup(family=family, zone=find_zone(family.timezone), keys=keys))

    return candidates([data], families, decoder_of, line)


@cache
def decodable() -> tuple[Family, ...]:
    """Families whose telegrams a decoder takes as they are; those of JSON take anything that is JSON."""
    found = [load_family(name) for name in family_names()]
    return tuple(
        family
        for family in found
        if family.protocol != "pulse"
        and load_driver(family.protocol).decoder is not None
        and not (family.json and family.json.several)
    )


@cache
def chosen() -> tuple[Chosen, ...]:
    """What comes of each capture that decodes; nothing where there is no corpus."""
    return tuple(_chosen())


def _chosen() -> Iterator[Chosen]:
    for folder, protocol in FOLDERS.items():
        families = [family for family in decodable() if (family.protocol == "json") == (protocol == "json")]
        for capture in captures(folder):
            found = choose(capture.data, families, keys_of(folder, capture))
            if found[0].heard.telegrams:
                equal = tuple(each.family.name for each in found if each.rank == found[0].rank)
                yield Chosen(folder, capture, found[0], equal)


def need_corpus() -> None:
    if not chosen():
        pytest.skip("corpus not present")


def test_protocol_of_every_capture_is_right() -> None:
    need_corpus()
    wrong = {
        each.capture.name: each.first.family.name
        for each in chosen()
        if each.first.family.protocol != FOLDERS[each.folder]
    }
    assert wrong == {}


def test_capture_whose_meter_has_a_family_of_its_own_is_told_by_it() -> None:
    need_corpus()
    wrong = {each.capture.name: each.equal for each in chosen() if each.own - set(each.equal)}
    assert wrong == {}


def test_families_that_say_they_were_tested_with_captures_are_those_that_were() -> None:
    need_corpus()
    tested = {family for each in chosen() for family in each.own}
    tested |= {each.first.family.name for each in chosen() if each.first.likeness == 0}
    said = {name for name in family_names() if load_family(name).tested == "captures"}
    assert said == tested


@pytest.mark.parametrize(
    "family",
    [each for each in decodable() if each.sample and each.protocol != "json"],  # JSON of several fits one document
    ids=lambda family: family.name,
)
def test_sample_of_a_family_is_told_by_it(family: Family) -> None:
    assert family.sample is not None
    others = [each for each in decodable() if each.protocol == family.protocol]
    found = choose(family.sample.telegram, others, family.sample.keys, family.line)
    assert found[0].heard.telegrams
    assert family.name in [each.family.name for each in found if each.rank == found[0].rank]
    own = next(each for each in found if each.family.name == family.name)
    assert own.likeness == (1 if family.identification is None else 0)


def test_of_families_that_are_as_good_the_line_decides() -> None:
    e450, e570 = (load_family(f"dlms-lg-{name}-switzerland") for name in ("e450", "e570"))
    sweden, norway = load_family("dlms-aidon-sweden"), load_family("dlms-generic")
    assert sweden.sample is not None
    data = sweden.sample.telegram
    assert choose(data, [norway, sweden], NO_KEYS, sweden.line)[0].family is sweden
    assert choose(data, [norway, sweden], NO_KEYS, norway.line)[0].family is norway
    assert choose(data, [norway, sweden], NO_KEYS)[0].family is norway
    assert e450.line == e570.line
