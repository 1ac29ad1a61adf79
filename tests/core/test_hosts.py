"""Names of machines: which are loopback, which a certificate can carry."""

import pytest

from meterway.core.errors import BadDataError
from meterway.core.hosts import LIMIT_NAMES, check_name, is_loopback, is_public_name, names_of, reached_at


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost", "LOCALHOST"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.7", "localhost.example.org", "", "127.1.evil.example"])
def test_not_loopback(host: str) -> None:
    assert not is_loopback(host)


@pytest.mark.parametrize(
    ("name", "checked"),
    [
        ("Meters.Example.ORG.", "meters.example.org"),
        ("pi", "pi"),
        ("192.0.2.7", "192.0.2.7"),
        ("2001:DB8:0::7", "2001:db8::7"),
        ("house_12.local", "house_12.local"),
    ],
)
def test_a_name_is_written_in_one_way(name: str, checked: str) -> None:
    assert check_name(name) == checked
    assert check_name(checked) == checked


@pytest.mark.parametrize(
    "name",
    ["", "a b", "https://h", "h:8080", "-h", "h-", "a..b", "*.example.org", "fe80::1%eth0", "a" * 64, "a." * 127 + "b"],
)
def test_what_no_certificate_can_carry(name: str) -> None:
    with pytest.raises(BadDataError, match="is no host name and no address"):
        check_name(name)


def test_a_server_is_reached_by_its_names_its_address_and_loopback() -> None:
    loopback = ("localhost", "127.0.0.1", "::1")
    assert names_of("192.0.2.7", ["pi.local"]) == ("pi.local", "192.0.2.7", *loopback)
    assert names_of("0.0.0.0", ["pi.local", "PI.local"]) == ("pi.local", *loopback)
    assert names_of("127.0.0.1", []) == ("127.0.0.1", "localhost", "::1")


def test_a_server_for_others_has_a_name() -> None:
    with pytest.raises(BadDataError, match=r"names is empty.*say how other machines call this one"):
        names_of("0.0.0.0", [])
    with pytest.raises(BadDataError, match="more than the"):
        names_of("0.0.0.0", [f"h{index}" for index in range(LIMIT_NAMES + 1)])


def test_what_listens_everywhere_is_reached_at_loopback() -> None:
    assert [reached_at(host) for host in ("0.0.0.0", "::", "192.0.2.7")] == ["127.0.0.1", "::1", "192.0.2.7"]


def test_a_public_name_means_the_same_machine_everywhere() -> None:
    assert is_public_name("meters.example.org")
    assert not any(map(is_public_name, ("pi", "pi.local", "192.0.2.7", "2001:db8::7", "home.arpa", "a.home.arpa")))
