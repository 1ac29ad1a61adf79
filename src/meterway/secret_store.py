"""Secrets at rest: one encrypted file, and how a configuration names what is in it.

Wherever a configuration names the file of a key, password or token, ``secret:NAME`` names one in the store instead.

Each secret is sealed with AES-256-GCM under the master key, with a nonce of its own, and its name as associated data:
none can be put in another's place. The file is ``{"version": 1, "secrets": {NAME: base64(nonce, sealed)}}``, so the
names can be read without the key. It is replaced as a whole, durably, and may be read by its owner only.

Where they are, the first that is there:

    store        $METERWAY_SECRETS; meterway.secrets among the service's credentials (systemd, LoadCredential=);
                 /etc/meterway/secrets for root, ~/.config/meterway/secrets for others
    master key   meterway.key among the service's credentials (LoadCredentialEncrypted=); $METERWAY_SECRETS_KEY;
                 the file beside the store, with .key behind its name
"""

import fcntl
import logging
import os
import re
import secrets
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import lru_cache
from pathlib import Path
from typing import Final, Literal, Self

import msgspec

from meterway.core.errors import SetupError
from meterway.durable_file import PRIVATE_MODE, replace_file

_log = logging.getLogger(__name__)

PREFIX: Final = "secret:"
KEY_BYTES: Final = 32
LIMIT_SECRET_BYTES: Final = 4096
LIMIT_SECRETS: Final = 1000
"""So many are kept; one more is refused."""

_NONCE_BYTES: Final = 12
_LIMIT_FILE_BYTES: Final = 16 * 1024 * 1024
_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,64}")
_CREDENTIAL_KEY: Final = "meterway.key"
_CREDENTIAL_STORE: Final = "meterway.secrets"

Change = Callable[[dict[str, bytes]], None]


class _File(msgspec.Struct):
    version: Literal[1]
    secrets: dict[str, bytes]


class SecretStore:
    """The secrets in one file, under one master key; neither is read before it is needed."""

    def __init__(self, path: Path, key_path: Path) -> None:
        self.path = path
        self.key_path = key_path
        self.is_key_systemds = False
        """Whether the master key was handed to us by systemd, which may keep it sealed by a TPM."""

    @classmethod
    def of(cls, environment: Mapping[str, str]) -> Self:
        """Return the store that a process with this environment uses."""
        credentials = environment.get("CREDENTIALS_DIRECTORY")
        given_key = Path(credentials, _CREDENTIAL_KEY) if credentials else None
        given_store = Path(credentials, _CREDENTIAL_STORE) if credentials else None
        if named := environment.get("METERWAY_SECRETS"):
            path = Path(named)
        elif given_store is not None and given_store.exists():
            path = given_store
        elif os.geteuid() == 0:
            path = Path("/etc/meterway/secrets")
        else:
            path = Path(environment.get("HOME", "/"), ".config/meterway/secrets")
        if given_key is not None and given_key.exists():
            store = cls(path, given_key)
            store.is_key_systemds = True
            return store
        named_key = environment.get("METERWAY_SECRETS_KEY")
        return cls(path, Path(named_key) if named_key else path.with_name(f"{path.name}.key"))

    @property
    def described(self) -> str:
        """Say where the secrets and their key are."""
        where = "handed over by systemd" if self.is_key_systemds else str(self.key_path)
        return f"{self.path}, master key {where}"

    def names(self) -> list[str]:
        """Return the names of all secrets, in order; no key is needed.

        Raises:
            SetupError: the file cannot be read, or is none of ours.
        """
        return sorted(self._load())

    def get(self, name: str) -> bytes:
        """Return a secret.

        Raises:
            SetupError: there is none of this name, or no master key that opens it.
        """
        sealed = self._load().get(name)
        if sealed is None:
            raise SetupError(f"there is no secret {name} in {self.path}; put it there: meterway secret set {name}")
        return self._open(name, sealed, self._key())

    def set(self, name: str, value: bytes) -> None:
        """Keep a secret, in place of the one of that name; the first one makes the master key if there is none.

        Raises:
            SetupError: the name or the value is not possible, the files cannot be written, or the master key is not
                the one that the others are sealed with.
        """
        if not _NAME.fullmatch(name):
            raise SetupError(f"the name of a secret is 1 to 64 letters, digits, '.', '_' or '-'; {name[:80]!r} is not")
        if not 1 <= len(value) <= LIMIT_SECRET_BYTES:
            raise SetupError(f"a secret has 1 to {LIMIT_SECRET_BYTES} bytes, this one {len(value)}")

        def put(found: dict[str, bytes]) -> None:
            key = self._key() if found or self.key_path.exists() or self.is_key_systemds else self._make_key()
            for each, sealed in found.items():
                self._open(each, sealed, key)
            if len(found) >= LIMIT_SECRETS and name not in found:
                raise SetupError(f"{self.path} has {LIMIT_SECRETS} secrets, the most it keeps; remove one first")
            found[name] = _seal(name, value, key)

        self._change(put)

    def remove(self, name: str) -> None:
        """Forget a secret; no key is needed.

        Raises:
            SetupError: there is none of this name, or the file cannot be written.
        """

        def drop(found: dict[str, bytes]) -> None:
            if found.pop(name, None) is None:
                raise SetupError(
                    f"there is no secret {name} in {self.path}; meterway secret list shows those there are"
                )

        self._change(drop)

    def _load(self) -> dict[str, bytes]:
        try:
            with self.path.open("rb") as file:
                data = file.read(_LIMIT_FILE_BYTES)
        except FileNotFoundError:
            return {}
        except OSError as error:
            raise SetupError(f"{self.path}: the secrets cannot be read: {error.strerror}") from error
        try:
            return msgspec.json.decode(data, type=_File).secrets
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            raise SetupError(f"{self.path}: no file of secrets ({error}); restore it from your backup") from error

    def _change(self, change: Change) -> None:
        """Change the file while nobody else does."""
        folder = self.path.parent
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with _locked(folder):
                self._check_owner()
                found = self._load()
                change(found)
                ordered = {name: found[name] for name in sorted(found)}
                replace_file(self.path, msgspec.json.encode(_File(1, ordered)), mode=PRIVATE_MODE)
        except OSError as error:
            raise SetupError(f"{self.path}: the secrets cannot be written: {error.strerror}") from error

    def _check_owner(self) -> None:
        """See that the service which reads the file can still do so when it was replaced.

        Raises:
            SetupError: it belongs to another user.
        """
        if self.path.exists() and (owner := self.path.stat().st_uid) != os.geteuid():
            raise SetupError(f"{self.path} belongs to user {owner}; change it as that user: sudo -u '#{owner}' ...")

    def _key(self) -> bytes:
        """Return the master key.

        Raises:
            SetupError: it is not there, no key, or open to others than its owner.
        """
        try:
            with self.key_path.open("rb") as file:
                mode = os.fstat(file.fileno()).st_mode
                key = file.read(KEY_BYTES + 1)
        except OSError as error:
            raise SetupError(
                f"{self.key_path}: the master key of {self.path} cannot be read: {error.strerror}; name it in "
                "METERWAY_SECRETS_KEY, or let systemd hand it over (docs/operations.md)"
            ) from error
        if mode & 0o077 and not self.is_key_systemds:  # systemd's own files show the mask of an access list there
            raise SetupError(f"{self.key_path}: the master key is open to other users: chmod 600 {self.key_path}")
        if len(key) != KEY_BYTES:
            raise SetupError(f"{self.key_path}: no master key, which has {KEY_BYTES} bytes")
        return key

    def _make_key(self) -> bytes:
        key = secrets.token_bytes(KEY_BYTES)
        replace_file(self.key_path, key, mode=PRIVATE_MODE)
        return key

    def _open(self, name: str, sealed: bytes, key: bytes) -> bytes:
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        try:
            return AESGCM(key).decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name.encode())
        except (InvalidTag, ValueError) as error:
            raise SetupError(
                f"secret {name} in {self.path} does not open with the master key {self.key_path}: it is the key of "
                "another store, or the file was altered"
            ) from error


def _seal(name: str, value: bytes, key: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + AESGCM(key).encrypt(nonce, value, name.encode())


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def secret_name(place: Path) -> str | None:
    """Return the NAME of ``secret:NAME``; None for the path of a file."""
    text = str(place)
    return text.removeprefix(PREFIX) if text.startswith(PREFIX) else None


def read_secret(place: Path) -> bytes:
    """Return what a file holds, or a secret of the store; at most ``LIMIT_SECRET_BYTES``.

    A file that others may read is taken, and the log says so.

    Raises:
        OSError: the file cannot be read.
        SetupError: as ``SecretStore.get``.
    """
    name = secret_name(place)
    if name is not None:
        return SecretStore.of(os.environ).get(name)
    with place.open("rb") as file:
        if os.fstat(file.fileno()).st_mode & 0o007:
            _say_open(place)
        return file.read(LIMIT_SECRET_BYTES)


@lru_cache(maxsize=1024)
def _say_open(place: Path) -> None:
    """Say it once for each file."""
    _log.warning("! %s is open to every user of this machine: chmod 600 %s", place, place)
