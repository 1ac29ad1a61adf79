"""Files that are replaced as a whole: on a disk that fills, over links of strangers, and with a kill between steps."""

import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from meterway.authority import Authority
from meterway.core.errors import SetupError
from meterway.durable_file import replace_file, write_private
from meterway.secret_store import SecretStore

ROOM_BYTES = 4 << 20
STEPS = frozenset({"open", "os.mkdir", "os.remove", "os.rename"})
"""Between two of these on files of the folder, as Python audits them, a process may be killed."""


def test_a_disk_that_fills_leaves_the_old_file_and_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "state"
    replace_file(path, b"old")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (ROOM_BYTES, before[1]))
    try:
        with pytest.raises(OSError, match="File too large") as raised:
            replace_file(path, bytes(ROOM_BYTES + 1))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert raised.value.filename == str(path), "the command line says which file it was"
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["state"]


def test_links_are_not_followed(tmp_path: Path) -> None:
    victim, path = tmp_path / "victim", tmp_path / "secret"
    victim.write_text("theirs")
    for link in (tmp_path / "secret.new", path):
        link.symlink_to(victim)
    write_private(path, "ours")
    assert victim.read_text() == "theirs"
    assert not path.is_symlink()
    assert path.read_text() == "ours"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def started(work: Callable[[], object]) -> int:
    """Do ``work`` in a process of its own; return its id."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return child


def killed_at(step: int, folder: Path, work: Callable[[], object]) -> bool:
    """Do ``work`` in a process that kills itself before a step; tell whether it came that far."""
    left = step

    def audit(event: str, arguments: tuple[object, ...]) -> None:
        nonlocal left
        if event in STEPS and str(arguments[0]).startswith(str(folder)):
            if left == 0:
                os.kill(os.getpid(), signal.SIGKILL)
            left -= 1

    def watched() -> None:
        sys.addaudithook(audit)
        work()

    _, status = os.waitpid(started(watched), 0)
    return os.WIFSIGNALED(status)


def test_an_authority_is_made_and_renewed_through_a_kill_at_every_step(tmp_path: Path) -> None:
    now = datetime.now(UTC)

    def start(folder: Path) -> Authority:
        authority = Authority.open(folder, clock=lambda: now)
        authority.server_certificate("broker", ["localhost"])
        return authority

    step = 0
    while killed_at(step, folder := tmp_path / str(step), lambda folder=folder: start(folder)):  # type: ignore[misc]
        handed_out = (folder / "ca.pem").read_bytes() if (folder / "ca.pem").exists() else None
        authority = start(folder)
        assert handed_out in (None, authority.ca_file.read_bytes()), "whoever has ca.pem need not be told"
        assert {each.name for each in folder.iterdir()} == {"ca.pem", "ca.key", "broker.pem", "lock"}
        step += 1
    assert step >= 9


def test_a_secret_is_there_or_not_after_a_kill_at_every_step(tmp_path: Path) -> None:
    step = 0
    while True:
        folder = tmp_path / str(step)
        store = SecretStore(folder / "secrets", folder / "secrets.key")
        if not killed_at(step, folder, lambda store=store: (store.set("a", b"1"), store.set("b", b"2"))):  # type: ignore[misc]
            break
        kept = store.names()
        assert kept in ([], ["a"], ["a", "b"])
        assert [store.get(name) for name in kept] == [b"1", b"2"][: len(kept)]
        store.set("c", b"3")
        assert store.get("c") == b"3"
        assert not list(folder.glob("*.new"))
        step += 1
    assert step >= 9


def test_many_processes_that_start_at_once_have_one_authority_and_keep_all_secrets(tmp_path: Path) -> None:
    store = SecretStore(tmp_path / "store" / "secrets", tmp_path / "store" / "secrets.key")

    def start(number: int) -> None:
        authority = Authority.open(tmp_path / "ca", clock=lambda: datetime.now(UTC))
        (tmp_path / f"{number}").write_text(authority.fingerprint)
        store.set(f"secret-{number}", b"%d" % number)

    for child in [started(lambda number=number: start(number)) for number in range(8)]:  # type: ignore[misc]
        os.waitpid(child, 0)
    assert len({(tmp_path / f"{number}").read_text() for number in range(8)}) == 1
    assert [store.get(f"secret-{number}") for number in range(8)] == [b"%d" % number for number in range(8)]


def test_a_key_of_the_authority_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Authority.open(tmp_path, clock=lambda: datetime.now(UTC))
    (tmp_path / "ca.key").chmod(0o640)
    with pytest.raises(SetupError, match=f"is open to other users, .*: chmod 600 {tmp_path}/ca.key"):
        Authority.open(tmp_path, clock=lambda: datetime.now(UTC))
