"""The key that a meter's readings must be signed with: shown, set, forgotten. Pure."""

import msgspec

from meterway.cloud.answers import Row
from meterway.cloud.query import Statement
from meterway.core.errors import BadDataError
from meterway.core.signatures import key_text, parse_key


class SigningKeyAnswer(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Whose signature a meter's readings carry."""

    meter_id: str
    public_key: str | None
    """Ed25519, base64url; null: none was seen, the first one whose signature holds is going to be taken."""
    required: bool
    """Whether readings without a good signature of that key go to quarantine."""


class SigningKeyChange(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True, rename="camel"):
    """The body of ``PUT /v1/meters/{meterId}/signingKey``."""

    public_key: str
    required: bool = False


def parse_signing_key(body: bytes) -> SigningKeyChange:
    """Return the change in a request body.

    Raises:
        BadDataError: with a sentence that names what is wrong.
    """
    try:
        change = msgspec.json.decode(body, type=SigningKeyChange)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise BadDataError(f"The body is not a signing key: {error}.", reason="bad-change") from error
    parse_key(change.public_key)
    return change


def select_signing_key(meter_id: str) -> Statement:
    """Return the statement for the key of a meter."""
    return Statement("select meter_id, signing_key, signature_required from meter where meter_id = $1", (meter_id,))


def set_signing_key(meter_id: str, change: SigningKeyChange | None) -> Statement:
    """Return the statement that sets the key of a meter, or forgets it, and returns what is then so."""
    return Statement(
        "update meter set signing_key = $2::bytea, signature_required = $3::boolean where meter_id = $1 "
        "returning meter_id, signing_key, signature_required",
        (meter_id, None if change is None else parse_key(change.public_key), change is not None and change.required),
    )


def signing_key_answer(row: Row) -> SigningKeyAnswer:
    """Return the key in a row."""
    key = row["signing_key"]
    return SigningKeyAnswer(
        meter_id=str(row["meter_id"]),
        public_key=key_text(key) if isinstance(key, bytes) else None,
        required=bool(row["signature_required"]),
    )
