"""What a broker refused, read from its log: MQTT 3.1.1 tells the sender of a refused publish that all is well.

nats-server says it by itself. mosquitto (2.0) says it only at ``log_type debug``, only in a file, on standard error or
in syslog, never on ``$SYS/broker/log/#``; and of a refused log-in it does not say whose it was.
"""

import re
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

import msgspec

Kind = Literal["publish", "subscribe", "login", "flood"]

AGAIN_AFTER_S = 60.0
"""The same refusal is passed on so often; how many there were meanwhile is then said."""
LIMIT_REMEMBERED = 1024
"""Different refusals remembered for that."""
LIMIT_TEXT = 256
"""Names and topics are cut to so many characters: they are a stranger's."""

UNFIT_TOPIC = "A topic has a space, which NATS does not take; it ended the connection."

_NATS = re.compile(r'\[\d+\] \S+ \S+ \[ERR\] \S+ - mid:\d+ - ("(?:[^"\\]|\\.)*") - (.*)', re.DOTALL)
_NATS_VIOLATION = re.compile(
    r'(Publish|Subscription) Violation - (?:User ("(?:[^"\\]|\\.)*"), )?Subject ("(?:[^"\\]|\\.)*")'
)
_NATS_LOGIN = re.compile(r'authentication error - User ("(?:[^"\\]|\\.)*")')
_NATS_UNFIT = "not supported for MQTT topics"
_MOSQUITTO = re.compile(r"(?:\S+: )?Denied PUBLISH from (.*) \(d\d, q\d, r\d, m\d+, '(.*)', \.\.\. \(\d+ bytes\)\)")


@dataclass(frozen=True, slots=True, kw_only=True)
class Refusal:
    """Something that a broker did not let a client do."""

    kind: Kind
    username: str | None
    """None where the broker does not say; then the beginning of the client id, up to a colon, is a good guess."""
    client_id: str
    topic: str | None = None
    """Of a publish; the filter of a subscription."""
    detail: str = ""
    """Why, as a sentence; empty where the kind says it."""
    count: int = 1
    """How often, since it was last said."""

    @property
    def device(self) -> str:
        """The user name, as far as it is known."""
        return self.username or self.client_id.partition(":")[0]


def parse_nats(line: str) -> Refusal | None:
    """Return what a line of nats-server's log says was refused."""
    found = _NATS.match(line)
    if found is None:
        return None
    client_id, said = _unquoted(found[1]), found[2]
    if violation := _NATS_VIOLATION.match(said):
        return Refusal(
            kind="publish" if violation[1] == "Publish" else "subscribe",
            username=_unquoted(violation[2]) if violation[2] else None,
            client_id=client_id,
            topic=_topic(_unquoted(violation[3])),
        )
    if login := _NATS_LOGIN.match(said):
        return Refusal(kind="login", username=_unquoted(login[1]), client_id=client_id)
    if _NATS_UNFIT in said:
        return Refusal(kind="publish", username=None, client_id=client_id, detail=UNFIT_TOPIC)
    return None


def parse_mosquitto(line: str) -> Refusal | None:
    """Return what a line of mosquitto's log says was refused."""
    found = _MOSQUITTO.match(line)
    if found is None:
        return None
    return Refusal(kind="publish", username=None, client_id=found[1][:LIMIT_TEXT], topic=found[2][:LIMIT_TEXT])


class Refusals:
    """Passes refusals on to ``sink``, the same one once a minute: who is refused often costs no more than others."""

    def __init__(self, sink: Callable[[Refusal], None], now_s: Callable[[], float]) -> None:
        self._sink = sink
        self._now_s = now_s
        self._said: OrderedDict[tuple[str, ...], tuple[float, int]] = OrderedDict()

    def put(self, refusal: Refusal) -> bool:
        """Take one; tell whether it was passed on."""
        key = (refusal.kind, refusal.device, refusal.topic or "", refusal.detail)
        now_s = self._now_s()
        said_s, unsaid = self._said.pop(key, (now_s - AGAIN_AFTER_S, 0))
        is_due = now_s - said_s >= AGAIN_AFTER_S
        self._said[key] = (now_s, 0) if is_due else (said_s, unsaid + 1)
        if len(self._said) > LIMIT_REMEMBERED:
            self._said.popitem(last=False)
        if is_due:
            self._sink(replace(refusal, count=unsaid + 1))
        return is_due


def _topic(subject: str) -> str:
    """Return the MQTT topic of a subject of NATS; a dot within a level is ``//``, an empty level ``/``."""
    levels = [{"/": "", "*": "+", ">": "#"}.get(level, level.replace("//", ".")) for level in subject.split(".")]
    return "/".join(levels)[:LIMIT_TEXT]


def _unquoted(text: str) -> str:
    """Return what is quoted as Go quotes; as it stands if JSON does not quote so."""
    try:
        return msgspec.json.decode(text, type=str)[:LIMIT_TEXT]
    except msgspec.DecodeError:
        return text[1:-1][:LIMIT_TEXT]
