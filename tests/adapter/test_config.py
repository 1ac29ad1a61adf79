from pathlib import Path

import pytest

from meterway.adapter.config import AdapterConfig, SerialSource
from meterway.core.config import dump_config, load_config
from meterway.core.errors import SetupError

GOOD = """
id = "cellar"
spool_dir = "/var/lib/meterway/adapter"

[[meters]]
id = "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff"
family = "p1-generic"
source = { type = "serial", port = "/dev/serial/by-id/usb-FTDI-0" }
timezone = "Europe/Amsterdam"
mapping = { "1-0:1.8.0" = "OBIS_1.8.0" }
static = { "SITE_household_size" = 3 }
channels = [{ channel = 1, id = "0b9c3f5e-1111-4222-8333-444455556666" }]
"""


def test_a_good_file_is_read() -> None:
    config = load_config(GOOD, AdapterConfig, where="adapter.toml")
    assert config.meters[0].source == SerialSource(port=Path("/dev/serial/by-id/usb-FTDI-0"))
    assert config.meters[0].static == {"SITE_household_size": 3}


def test_what_is_written_is_read_back() -> None:
    config = load_config(GOOD, AdapterConfig, where="adapter.toml")
    assert load_config(dump_config(config), AdapterConfig, where="again") == config


@pytest.mark.parametrize(
    ("old", "new", "sentence"),
    [
        ("timezone", "timezon", "unknown field `timezon` - at `$.meters[0]`; did you mean `timezone`?"),
        ("Europe/Amsterdam", "Europe/Amsterdm", "time zone 'Europe/Amsterdm' is not an IANA zone"),
        ('type = "serial"', 'type = "usb"', "Invalid value 'usb'"),
        ("bf17c6a0-82ce", "bf17 c6a0", "is not 1 to 64 letters, digits, '_' or '-'"),
        ("0b9c3f5e-1111-4222-8333-444455556666", "bf17c6a0-82ce-4214-adbd-5a7e4ecdb0ff", "stands twice"),
        ('"1-0:1.8.0" =', '"one" =', "'one' is not an OBIS code"),
        ("spool_dir", "spool_folder", "did you mean `spool_dir`?"),
        ("channel = 1", "channel = 9", "Expected `int` <= 4"),
    ],
)
def test_a_mistake_is_named_with_its_file_and_place(old: str, new: str, sentence: str) -> None:
    with pytest.raises(SetupError) as caught:
        load_config(GOOD.replace(old, new), AdapterConfig, where="adapter.toml")
    assert sentence in str(caught.value)
    assert str(caught.value).startswith("adapter.toml: ")
