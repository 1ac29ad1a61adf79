"""What the routes of privacy read and write. Pure."""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Literal, TypeAlias

import msgspec
from msgspec import Meta

from meterway.cloud.answers import Answer, Aware, Body, Number
from meterway.cloud.privacy.disclosure import Reason
from meterway.cloud.query import LIMIT_PROPERTIES, YEARS
from meterway.core.errors import BadDataError
from meterway.core.properties import OperationalProperty, catalogue
from meterway.core.topics import check_id

Step: TypeAlias = Literal[900, 3600, 86400]

Ground: TypeAlias = Literal["not-needed", "consent-withdrawn", "objection", "unlawful", "legal-obligation"]
"""Why something is erased: the grounds of GDPR, article 17 (1). A word of these and no sentence, so that a proof names
nobody."""

LIMIT_CONSENT = timedelta(days=5 * 366)
"""A consent ends after this at the latest; it can be given again."""
LIMIT_DAYS = {900: 7, 3600: 31, 86_400: 366}
"""So many days may be asked for at once, by how long a cell is."""
LIMIT_KEEP_DAYS = 36_525


class ConsentNew(Body, frozen=True, kw_only=True):
    """The body of ``POST /v1/consents``."""

    household_id: Annotated[int, Meta(ge=1, lt=2**31)]
    """One that the member lives or lived in."""
    purpose: Literal["research"] = "research"
    property_ids: Annotated[tuple[str, ...], Meta(min_length=1, max_length=LIMIT_PROPERTIES)]
    step_s: Step = 86400
    """The shortest cells for which the readings may be used, in seconds."""
    from_time: Aware | None = None
    until_time: Aware | None = None
    """Readings of which time: [``fromTime``, ``untilTime``); of the time that the member lives there, anyway."""
    expires_time: Aware


class ConsentAnswer(Answer, frozen=True):
    """A consent."""

    consent_id: int
    login: str
    household_id: int
    purpose: Literal["research"]
    property_ids: tuple[str, ...]
    step_s: int
    from_time: datetime | None
    until_time: datetime | None
    given_time: datetime
    expires_time: datetime
    revoked_time: datetime | None


class ConsentList(Answer, frozen=True):
    """Consents, newest first."""

    content: tuple[ConsentAnswer, ...]


class Residence(Answer, frozen=True):
    """Where the member lives or lived."""

    household_id: int
    name: str
    from_time: datetime
    until_time: datetime | None
    meter_ids: tuple[str, ...]


class OwnProperty(Answer, frozen=True):
    """A property of the own meters."""

    property_id: str
    description: str


class OwnPrivacy(Answer, frozen=True):
    """What is known of who asks, in short; the export has all of it."""

    residences: tuple[Residence, ...]
    erasure_requested_time: datetime | None
    properties: tuple[OwnProperty, ...]
    """What a consent can be given for."""


class ErasureNew(Body, frozen=True, kw_only=True):
    """The body of ``POST /v1/privacy/erasures``: exactly one of ``account``, ``householdId`` and ``meterId``."""

    account: Annotated[str, Meta(max_length=128)] | None = None
    """A login: the account with all that hangs on it, and the readings of the time that only this person lived
    there."""
    household_id: Annotated[int, Meta(ge=1, lt=2**31)] | None = None
    """The readings of its meters."""
    meter_id: str | None = None
    """The readings of a meter; without ``fromTime`` and ``untilTime`` the meter itself is forgotten too."""
    from_time: Aware | None = None
    until_time: Aware | None = None
    """Not later than now, which it is if left out."""
    reason: Ground


class ErasureAnswer(Answer, frozen=True):
    """An erasure, and its proof."""

    erasure_id: int
    subject_kind: Literal["account", "household", "meter"]
    subject_digest: str
    """SHA-256 (hexadecimal) of ``account/[login]``, ``household/[number]`` or ``meter/[meterId]``."""
    reason: str
    by: str | None
    """Who asked for it; null if nobody in particular, or if they are erased themselves."""
    requested_time: datetime
    finished_time: datetime | None
    """Null: the work goes on."""
    counts: dict[str, int]
    """How many rows of which table were deleted; of ``audit`` and ``device``: changed, so that they name nobody."""
    previous_digest: str | None
    digest: str | None
    """Covers the facts above and ``previousDigest``."""


class ErasureList(Answer, frozen=True):
    """Erasures, newest first."""

    content: tuple[ErasureAnswer, ...]
    next_before: int | None
    """Send as ``before`` for the next page; null at the end."""


class ErasureDetail(ErasureAnswer, frozen=True):
    """An erasure, looked at again."""

    left: dict[str, int]
    """How many rows there are now of what was erased, by table: 0 everywhere if it is gone."""
    proof_holds: bool
    """Whether this proof and all others follow from each other."""
    backups: str
    """What holds for backups."""


class RequestAnswer(Answer, frozen=True):
    """Somebody who asked to be erased."""

    login: str
    requested_time: datetime


class RequestList(Answer, frozen=True):
    """Those who wait to be erased, longest first."""

    content: tuple[RequestAnswer, ...]


class RetentionRule(Body, frozen=True):
    """For how long something is kept."""

    property_id: str
    """A property, or ``*`` for whole readings."""
    keep_days: Annotated[int, Meta(ge=1, le=LIMIT_KEEP_DAYS)]


class Retention(Body, frozen=True, kw_only=True):
    """The rules of a tenant; what has none is kept for ever."""

    tenant_id: str | None = None
    """Without it the tenant of who asks, or else the first."""
    rules: Annotated[tuple[RetentionRule, ...], Meta(max_length=1000)]


class RetentionList(Answer, frozen=True):
    """The rules of the tenants that one may see."""

    content: tuple[Retention, ...]


class ResearchQuery(Body, frozen=True, kw_only=True):
    """The body of ``POST /v1/research``."""

    property_name: Annotated[str, Meta(max_length=128)]
    from_time: Aware
    until_time: Aware
    """Both at midnight of UTC; the last day must be over."""
    step_s: Step = 3600
    """How long a cell is, in seconds; if it may not be told so finely, longer ones are answered."""


class ResearchCell(Answer, frozen=True):
    """A cell of the answer."""

    start: datetime
    households: int
    """How many distinct households are in it."""
    sum: Number
    mean: Number
    """The sum by the number of households."""


class ResearchAnswer(Answer, frozen=True):
    """Sums over households: of the mean of a power, or of what a register grew by."""

    property_id: str
    unit: str | None
    step_s: int
    is_coarsened: bool
    """Whether the cells are longer than was asked, because shorter ones would tell of single households."""
    content: tuple[ResearchCell, ...]


_REFUSALS: dict[Reason, str] = {
    "too-few-households": "fewer than {k} households with a valid consent have readings in every cell of",
    "one-household-dominates": "one household makes up more than {share} of a sum (or all have nothing) on",
    "tells-a-difference": "set against an earlier answer this one would tell of fewer than {k} households on",
}


def refusal(reason: Reason, day: datetime, *, k: int, share: Decimal) -> str:
    """Return why research is not answered, as a sentence."""
    why = _REFUSALS[reason].format(k=k, share=share)
    return f"This cannot be told: {why} {day.date().isoformat()}. Ask for other days, or another property."


def property_named(name: str, where: str) -> OperationalProperty:
    """Return the property that is called ``name``, by whatever alias.

    Raises:
        BadDataError: there is none.
    """
    found = catalogue().find(name)
    if found is None:
        raise BadDataError(f"`{where}` {name[:80]!r} is no property; docs/properties.md lists all.", reason="bad-query")
    return found


def check_consent(new: ConsentNew, now: datetime) -> ConsentNew:
    """Return a consent with full names of properties.

    Raises:
        BadDataError: it is over before it begins, or is to last longer than one may.
    """
    _check_years(fromTime=new.from_time, untilTime=new.until_time)
    if not now < new.expires_time <= now + LIMIT_CONSENT:
        raise BadDataError("`expiresTime` must lie ahead, by five years at most.", reason="bad-time")
    if new.from_time is not None and new.until_time is not None and new.from_time >= new.until_time:
        raise BadDataError("`untilTime` must be later than `fromTime`.", reason="bad-time")
    names = tuple(
        property_named(name, f"propertyIds[{index}]").property_id for index, name in enumerate(new.property_ids)
    )
    return msgspec.structs.replace(new, property_ids=tuple(dict.fromkeys(names)))


def check_erasure(new: ErasureNew, now: datetime) -> ErasureNew:
    """Return what to erase.

    Raises:
        BadDataError: it is not one thing, or reaches into the future.
    """
    _check_years(fromTime=new.from_time, untilTime=new.until_time)
    if sum(each is not None for each in (new.account, new.household_id, new.meter_id)) != 1:
        raise BadDataError("Name one of `account`, `householdId` and `meterId`.", reason="bad-erasure")
    if new.account is not None and (new.from_time or new.until_time):
        raise BadDataError(
            "An account is erased whole: leave out `fromTime` and `untilTime`, or name its household.",
            reason="bad-erasure",
        )
    if new.until_time is not None and new.until_time > now:
        raise BadDataError("`untilTime` lies ahead: what is not there yet cannot be erased.", reason="bad-time")
    if new.from_time is not None and new.from_time >= (new.until_time or now):
        raise BadDataError("`untilTime` must be later than `fromTime`.", reason="bad-time")
    if new.meter_id is not None:
        check_id(new.meter_id, "meter id")
    return new


def check_retention(new: Retention) -> Retention:
    """Return rules with full names of properties.

    Raises:
        BadDataError: there is no such property, or two rules for one.
    """
    names = [
        each.property_id
        if each.property_id == "*"
        else property_named(each.property_id, f"rules[{index}].propertyId").property_id
        for index, each in enumerate(new.rules)
    ]
    if len(set(names)) < len(names):
        raise BadDataError("There are two rules for one property: keep one.", reason="bad-retention")
    rules = tuple(RetentionRule(property_id=n, keep_days=r.keep_days) for n, r in zip(names, new.rules, strict=True))
    return msgspec.structs.replace(new, rules=rules)


def days_of(query: ResearchQuery, now: datetime) -> list[datetime]:
    """Return the days (UTC) that a query asks for.

    Raises:
        BadDataError: it does not ask for whole days that are over, or for too many.
    """
    _check_years(fromTime=query.from_time, untilTime=query.until_time)
    start, end = (each.astimezone(UTC) for each in (query.from_time, query.until_time))
    for name, each in (("fromTime", start), ("untilTime", end)):
        if (each.hour, each.minute, each.second, each.microsecond) != (0, 0, 0, 0):
            raise BadDataError(
                f"`{name}` must be midnight of UTC, as 2026-11-23T00:00:00Z: the cells are fixed, so that the "
                "difference of two answers tells nothing.",
                reason="bad-time",
            )
    count, limit = (end - start).days, LIMIT_DAYS[query.step_s]
    if not 1 <= count <= limit or end > now:
        raise BadDataError(
            f"Ask for 1 to {limit} days that are over; longer cells allow more of them.", reason="bad-time"
        )
    return [start + timedelta(days=number) for number in range(count)]


def _check_years(**given: datetime | None) -> None:
    for name, instant in given.items():
        if instant is not None and instant.year not in YEARS:
            raise BadDataError(
                f"`{name}` must lie between the years {YEARS.start} and {YEARS.stop - 1}.", reason="bad-time"
            )
