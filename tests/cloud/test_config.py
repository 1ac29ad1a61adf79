"""The cloud's configuration: every key has a bound and a sentence, secrets have no key."""

from pathlib import Path

import pytest

from meterway.cloud.config import CloudConfig
from meterway.cloud.service import read_dsn
from meterway.core.config import dump_config, load_config
from meterway.core.errors import SetupError


def load(text: str) -> CloudConfig:
    return load_config(text, CloudConfig, where="cloud.toml")


def test_an_empty_file_is_a_cloud_on_loopback() -> None:
    config = load("")
    assert (config.http.host, config.role, config.ingest.strict) == ("127.0.0.1", "all", False)
    assert config.ingest.filters == ("concentrator/#",)


def test_certificates_lie_beside_the_data() -> None:
    both = '[http]\nhost = "192.0.2.7"\n[database]\nembedded = "/var/lib/x/postgres"\n'
    assert load(both).certificate_dir == Path("/var/lib/x/certificates")
    embedded = both + '[embedded_broker]\ndata_dir = "/var/lib/x/broker"\n'
    assert load(embedded).certificate_dir == Path("/var/lib/x/broker/certificates")
    assert load(embedded.replace("[http]", '[http]\ncertificate_dir = "/c"')).certificate_dir == Path("/c")
    assert load('[http]\nhost = "192.0.2.7"').certificate_dir is None


def test_what_is_written_is_read_again() -> None:
    config = load('role = "ingest"\nworker = "b"\n[database]\nembedded = "/var/lib/x"\n[ingest]\nbatch_limit = 100\n')
    assert load(dump_config(config)) == config
    assert config.database.embedded == Path("/var/lib/x")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[ingest]\nstrikt = true", "cloud.toml: Object contains unknown field `strikt`.*did you mean `strict`"),
        ('[database]\ndsn = "postgresql://"', "unknown field `dsn`.*did you mean `dsn_file`"),
        ('[database]\nembedded = "a"\ndsn_file = "b"', "has both embedded and dsn_file: keep one"),
        ('[http]\nhost = "0.0.0.0"', "names is empty, .*say how other machines call this one"),
        ('[http]\nhost = "192.0.2.7"\nopen = true', "open lets everybody do everything, so host .* loopback address"),
        ('[http]\nnames = ["https://h"]', "'https://h' is no host name and no address"),
        ("[http]\nredirect_port = 80", "redirect_port leads to https"),
        ('[http]\nhost = "192.0.2.7"\nport = 80\nredirect_port = 80', "port and redirect_port are both 80"),
        ('[http]\nkey_file = "k"', "key_file stands without certificate_file"),
        ("[http]\nport = 70000", "<= 65535"),
        ('[ingest]\nfilters = ["#"]', "does not begin with concentrator/"),
        ("[ingest]\nfilters = []", "filters is empty"),
        ("[ingest]\nbatch_limit = 0", ">= 1"),
        ('worker = "a b"', "worker 'a b' is not 1 to 64 letters"),
        ('role = "both"', "Invalid enum value 'both'"),
    ],
)
def test_a_mistake_is_named(text: str, message: str) -> None:
    with pytest.raises(SetupError, match=message):
        load(text)


def test_the_dsn_comes_from_a_file_or_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("METERWAY_DSN", raising=False)
    with pytest.raises(SetupError, match=r"no database is named: set .* METERWAY_DSN"):
        read_dsn(load("").database)
    monkeypatch.setenv("METERWAY_DSN", "postgresql://from-environment")
    assert read_dsn(load("").database) == "postgresql://from-environment"
    file = tmp_path / "dsn"
    with pytest.raises(SetupError, match=f"dsn_file {file} cannot be read"):
        read_dsn(load(f'[database]\ndsn_file = "{file}"').database)
    file.write_text("postgresql://from-file\n")
    assert read_dsn(load(f'[database]\ndsn_file = "{file}"').database) == "postgresql://from-file"
