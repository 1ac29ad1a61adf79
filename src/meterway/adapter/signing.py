"""The key with which an adapter signs its readings: read, or made when it is first needed."""

import logging
from pathlib import Path

from meterway.adapter.config import SigningConfig
from meterway.core.errors import BadDataError, SetupError
from meterway.core.signatures import Signer
from meterway.durable_file import PRIVATE_MODE, replace_file
from meterway.secret_store import read_secret

_log = logging.getLogger(__name__)


def key_path(spool_dir: Path) -> Path:
    """Return the file of a key that was made here: beside the spool's folder, as it outlives a spool."""
    return spool_dir.with_name(f"{spool_dir.name}-signing.key")


def open_signer(config: SigningConfig, spool_dir: Path) -> Signer | None:
    """Return what signs the readings of an adapter; None where they are not signed.

    Raises:
        SetupError: the key cannot be read, written, or is none.
    """
    if not config.enabled:
        return None
    place = config.key_file or key_path(spool_dir)
    if config.key_file is None and not place.exists():
        _make(place)
    return load_signer(place)


def load_signer(place: Path) -> Signer:
    """Return the signer with the key in a file or secret.

    Raises:
        SetupError: it cannot be read, or is no key.
    """
    try:
        return Signer.of_pem(read_secret(place))
    except OSError as error:
        raise SetupError(f"{place}: the signing key cannot be read: {error.strerror}") from error
    except BadDataError as error:
        raise SetupError(f"{place}: {error}; make one: openssl genpkey -algorithm ed25519") from error


def _make(path: Path) -> None:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

    pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    try:
        replace_file(path, pem, mode=PRIVATE_MODE)
    except OSError as error:
        raise SetupError(f"{path}: the signing key cannot be written: {error.strerror}") from error
    _log.info("a new signing key was made: %s; keep a copy, a lost key must be replaced in the cloud by hand", path)
