"""Reading configuration: what is wrong is named with file, key and the nearest key that exists."""

from pathlib import Path

import msgspec
import pytest

from meterway.core.config import convert_config, dump_config, load_config
from meterway.core.errors import SetupError


class Inner(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    baud: int = 9600
    key_file: Path | None = None


class Outer(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    name: str
    lines: tuple[Inner, ...] = ()


def problem(text: str) -> str:
    with pytest.raises(SetupError) as caught:
        load_config(text, Outer, where="adapter.toml")
    return str(caught.value)


def test_a_configuration_is_read() -> None:
    text = 'name = "a"\n[[lines]]\nbaud = 115200\nkey_file = "/run/key"\n'
    assert load_config(text, Outer, where="x") == Outer("a", (Inner(115200, Path("/run/key")),))


def test_what_is_no_toml_is_named_with_its_file() -> None:
    assert problem("name = ").startswith("adapter.toml: not TOML: ")


def test_a_misspelt_key_gets_the_nearest_one() -> None:
    assert problem('nmae = "a"').endswith("did you mean `name`?")
    assert "`$.lines[0]`; did you mean `baud`?" in problem('name = "a"\n[[lines]]\nbuad = 1\n')


def test_a_strange_key_gets_the_manual() -> None:
    assert problem('name = "a"\nzzzzzz = 1').endswith("see docs/config.md for the keys there are")


def test_a_value_of_the_wrong_kind_is_named_with_its_path() -> None:
    message = problem('name = "a"\n[[lines]]\nbaud = "fast"\n')
    assert message == "adapter.toml: Expected `int`, got `str` - at `$.lines[0].baud`"


def test_a_missing_key_is_named() -> None:
    assert "missing required field `name`" in problem("")


def test_a_table_is_converted_the_same_way() -> None:
    assert convert_config({"name": "a"}, Outer, where="x") == Outer("a")


def test_a_written_configuration_reads_as_the_same() -> None:
    config = Outer("a", (Inner(300), Inner(2400, Path("/run/key"))))
    assert load_config(dump_config(config), Outer, where="x") == config


def test_a_key_that_stands_in_another_table_is_not_suggested_as_itself() -> None:
    assert problem('name = "a"\nbaud = 9600').endswith("it stands in another table, see docs/config.md")
