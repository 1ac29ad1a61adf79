"""Passwords: what they must be, and their argon2 hashes, made beside the event loop."""

import asyncio
import secrets
from unicodedata import normalize

from pwdlib import PasswordHash
from pwdlib.hashers.argon2 import Argon2Hasher

from meterway.cloud.problems import HttpError
from meterway.core.errors import BadDataError

LEAST_CHARACTERS = 10
LIMIT_CHARACTERS = 200
AT_ONCE = 2
"""Hashes at the same time: each takes 64 MiB and a core."""
LIMIT_WAITING = 50
"""So many wait for their turn; further ones are told to try again."""


def check_password(password: str, login: str) -> None:
    """See that a new password is long enough.

    Raises:
        BadDataError: it is not, or is the login.
    """
    if not LEAST_CHARACTERS <= len(password) <= LIMIT_CHARACTERS:
        raise BadDataError(
            f"The password must have {LEAST_CHARACTERS} to {LIMIT_CHARACTERS} characters; a few words make a good one.",
            reason="bad-password",
        )
    if password.casefold() == login.casefold():
        raise BadDataError("The password must not be the login.", reason="bad-password")


class Hasher:
    """Makes and checks hashes; a check takes the same time whether there is a hash or not."""

    def __init__(self) -> None:
        self._argon2 = PasswordHash((Argon2Hasher(),))
        self._turns = asyncio.Semaphore(AT_ONCE)
        self._waiting = 0
        self._nobodys: str | None = None

    async def hash(self, password: str) -> str:
        """Return what is stored of a password.

        Raises:
            HttpError: 503, too many wait.
        """
        return await self._in_turn(password, None)

    async def verify(self, password: str, password_hash: str | None) -> bool:
        """Tell whether ``password`` is the one of ``password_hash``; with None it takes as long and is False.

        Raises:
            HttpError: 503, too many wait.
        """
        if self._nobodys is None:
            self._nobodys = await self.hash(secrets.token_urlsafe())
        same = await self._in_turn(password, password_hash or self._nobodys) == "same"
        return same and password_hash is not None

    async def _in_turn(self, password: str, known: str | None) -> str:
        if self._waiting >= LIMIT_WAITING:
            raise HttpError(
                503,
                "Too many sign in at once; try again in a moment.",
                reason="busy",
                headers={"Retry-After": "2"},
            )
        self._waiting += 1
        try:
            async with self._turns:
                return await asyncio.to_thread(self._work, normalize("NFC", password), known)
        finally:
            self._waiting -= 1

    def _work(self, password: str, known: str | None) -> str:
        if known is None:
            return self._argon2.hash(password)
        return "same" if self._argon2.verify(password, known) else "other"
