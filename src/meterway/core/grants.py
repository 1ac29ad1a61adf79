"""What each kind of user may do on a broker; what no filter of its grant names is refused.

    user                            publishes                                   reads
    adapter                         smartMeterMessage/[its meters]/#            receipt/[its meters]
    concentrator, adapters' side    receipt/+                                   smartMeterMessage/#
    concentrator, cloud's side      concentrator/[its id]/#                     receipt/[its id]
    cloud                           receipt/+                                   concentrator/#
    observer                                                                    all of these

Every user has client ids of its own: the user name itself, or the user name, a colon and anything, and those that its
grant names. As no user name has a colon, nobody can take over the session of another.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace

from meterway.core.channels import CHANNELS, channel_meter_id
from meterway.core.topics import CONCENTRATOR_FILTER, ROOTS, SMART_METER_FILTER, check_id, receipt_topic

ANY_RECEIPT_FILTER = "receipt/+"

ADAPTER_MESSAGES_PER_S = 2_000.0
"""A telegram a second of many meters, and the rest of an outage behind it."""
CONCENTRATOR_MESSAGES_PER_S = 20_000.0
"""More than a cloud on one machine stores."""
SPARE_CONNECTIONS = 8
"""Beside those that a component needs: the broker may not have noticed yet that old ones are dead."""


@dataclass(frozen=True, slots=True)
class Grant:
    """What one user may do, as MQTT topic filters."""

    publish: tuple[str, ...] = ()
    read: tuple[str, ...] = ()
    limit_messages_per_s: float | None = None
    """How many messages of up to 8 KiB it may publish in the long run; ten times as many at once. None: any."""
    limit_connections: int | None = None
    """How many connections it may have at a time. None: any."""
    client_ids: tuple[str, ...] = ()
    """Further client ids that only this user has."""


CLOUD = Grant(publish=(ANY_RECEIPT_FILTER,), read=(CONCENTRATOR_FILTER,))
COLLECTOR = Grant(publish=(ANY_RECEIPT_FILTER,), read=(SMART_METER_FILTER,))
"""A concentrator towards its adapters."""
OBSERVER = Grant(read=tuple(f"{root}/#" for root in sorted(ROOTS)))


def adapter_grant(meter_ids: Iterable[str], *, sources: Iterable[str] = ()) -> Grant:
    """Return what an adapter of these meters may do, and of those behind them that nobody gave an id.

    ``sources`` are filters on which others publish telegrams to it.

    Raises:
        BadDataError: an id that cannot stand in a topic.
    """
    named = [check_id(each, "smart meter id") for each in meter_ids]
    ids = sorted({*named, *(channel_meter_id(each, channel) for each in named for channel in CHANNELS)})
    return Grant(
        publish=tuple(f"smartMeterMessage/{each}/#" for each in ids),
        read=(*map(receipt_topic, ids), *sources),
        limit_messages_per_s=ADAPTER_MESSAGES_PER_S,
        limit_connections=SPARE_CONNECTIONS + 2 * len(ids),
    )


def concentrator_grant(concentrator_id: str) -> Grant:
    """Return what a concentrator may do at the cloud's broker.

    Raises:
        BadDataError: an id that cannot stand in a topic.
    """
    own = check_id(concentrator_id, "concentrator id")
    return Grant(
        publish=(f"concentrator/{own}/#",),
        read=(receipt_topic(own),),
        limit_messages_per_s=CONCENTRATOR_MESSAGES_PER_S,
        limit_connections=SPARE_CONNECTIONS,
    )


def collecting(grant: Grant, concentrator_id: str) -> Grant:
    """Return ``grant``, and beside it what a concentrator may do towards its adapters.

    Raises:
        BadDataError: an id that cannot stand in a topic.
    """
    return replace(
        grant,
        publish=grant.publish + COLLECTOR.publish,
        read=grant.read + COLLECTOR.read,
        client_ids=(*grant.client_ids, collector_client_id(concentrator_id)),
    )


def collector_client_id(concentrator_id: str) -> str:
    """Return the client id of a concentrator towards its adapters; its session at the broker outlives a restart.

    Raises:
        BadDataError: an id that cannot stand in a topic.
    """
    return f"meterway-concentrator-local-{check_id(concentrator_id, 'concentrator id')}"


def owns_client_id(username: str, grant: Grant, client_id: str) -> bool:
    """Tell whether ``username`` may connect with this MQTT client id."""
    return client_id == username or client_id.startswith(f"{username}:") or client_id in grant.client_ids
