"""The keys of an encrypted meter: what the grid operator hands out, read from a file or the store of secrets.

A key file is text: the encryption key (operators say GUEK, EK, or just "the key") as 32 hexadecimal digits on its
first line and, if there is one, the authentication key (GAK, AK) on the second. Blanks, colons and dashes between
digits do not count; what follows ``#`` is a comment.
"""

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from meterway.core.errors import SetupError
from meterway.secret_store import read_secret

KEY_BYTES: Final = 16
"""AES-128, which security suites 0 and 1 use."""

_MOST_KEYS: Final = 2
_BETWEEN_DIGITS: Final = re.compile(r"[\s:-]+")
_HEX_KEY: Final = re.compile(rf"[0-9A-Fa-f]{{{2 * KEY_BYTES}}}")


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one meter; ``repr`` does not show them."""

    encryption: bytes | None = field(default=None, repr=False)
    """Global unicast encryption key; without it nothing encrypted can be read."""
    authentication: bytes | None = field(default=None, repr=False)
    """Without it telegrams are decrypted, but none is ``verified``."""


NO_KEYS: Final = Keys()


def parse_keys(text: str, *, where: str) -> Keys:
    """Return the keys in the text of a key file; ``where`` names the file in errors, which never quote it.

    Raises:
        SetupError: not one or two keys of 16 bytes.
    """
    lines = [_BETWEEN_DIGITS.sub("", line.partition("#")[0]) for line in text.splitlines()]
    found = [line for line in lines if line]
    if not 1 <= len(found) <= _MOST_KEYS:
        raise SetupError(f"{where}: has {len(found)} keys; the first line is the encryption key, a second may follow")
    for number, digits in enumerate(found, 1):
        if not _HEX_KEY.fullmatch(digits):
            raise SetupError(
                f"{where}: key {number} has {len(digits)} characters; a key is {2 * KEY_BYTES} hexadecimal digits"
            )
    keys = [bytes.fromhex(digits) for digits in found]
    return Keys(keys[0], keys[1] if len(keys) == _MOST_KEYS else None)


def load_keys(key_file: Path | None, authentication_key_file: Path | None = None) -> Keys:
    """Return the keys in the files; the second one holds the authentication key alone and comes before the first's.

    Raises:
        SetupError: a file cannot be read, or as ``parse_keys``; an authentication key without an encryption key.
    """
    if key_file is None:
        if authentication_key_file is not None:
            raise SetupError(f"{authentication_key_file}: an authentication key is of no use without an encryption key")
        return NO_KEYS
    keys = parse_keys(_read(key_file), where=str(key_file))
    if authentication_key_file is None:
        return keys
    alone = parse_keys(_read(authentication_key_file), where=str(authentication_key_file))
    return Keys(keys.encryption, alone.encryption)


def load_password(file: Path | None) -> str | None:
    """Return the password that is a file's only line; None without a file.

    Raises:
        SetupError: it cannot be read, or does not have one line.
    """
    if file is None:
        return None
    lines = [line for line in _read(file, what="password file").splitlines() if line]
    if len(lines) != 1:
        raise SetupError(f"{file}: has {len(lines)} lines; a password file has one, the password as the meter wants it")
    return lines[0]


def _read(place: Path, *, what: str = "key file") -> str:
    try:
        return read_secret(place).decode("latin-1")
    except OSError as error:
        raise SetupError(f"{place}: the {what} cannot be read: {error.strerror}") from error
