"""How many messages of each topic were ever appended, and the last mark. Pure."""

from collections.abc import Iterator
from typing import NamedTuple

from meterway.core.errors import SetupError

LIMIT_TOPICS = 10_000
"""The most topics that one spool counts: one adapter process has a handful of meters."""


class TopicState(NamedTuple):
    """What a spool remembers of a topic, also after its messages are delivered and deleted."""

    appended: int = 0
    """How many messages were ever appended."""
    mark: bytes = b""
    """The ``mark`` of the last one."""


class Tally:
    """The states of all topics, with those of messages that are not yet durable on top."""

    def __init__(self) -> None:
        self._durable: dict[str, TopicState] = {}
        self._pending: dict[str, TopicState] = {}

    def __len__(self) -> int:
        return len(self._durable)

    def __iter__(self) -> Iterator[tuple[str, TopicState]]:
        """Yield the durable states."""
        return iter(self._durable.items())

    def __getitem__(self, topic: str) -> TopicState:
        """Return the state with all appended messages, durable or not."""
        return self._pending.get(topic) or self._durable.get(topic) or TopicState()

    def append(self, topic: str, mark: bytes) -> int:
        """Count one more message; return its count.

        Raises:
            SetupError: ``topic`` is one more than ``LIMIT_TOPICS``.
        """
        # Counting the union of the two is slow, so it is done near the bound only.
        near = len(self._durable) + len(self._pending) >= LIMIT_TOPICS
        if near and topic not in (known := self._durable.keys() | self._pending.keys()) and len(known) >= LIMIT_TOPICS:
            raise SetupError(
                f"a spool counts at most {LIMIT_TOPICS} topics and {topic!r} is one more; "
                "spread the meters over several adapters"
            )
        state = TopicState(self[topic].appended + 1, mark)
        self._pending[topic] = state
        return state.appended

    def settle(self, topic: str, state: TopicState) -> None:
        """Take a state that is on the disk."""
        self._durable[topic] = state
        if self._pending.get(topic) == state:
            del self._pending[topic]

    def forget_pending(self) -> None:
        """Go back to the durable states: the messages that were appended since could not be stored."""
        self._pending.clear()

    def skip(self, count: int) -> None:
        """Add ``count`` to every topic: so many messages were lost and it is not known whose.

        A gap can be explained, a number that is used twice cannot.
        """
        for topic, state in self._durable.items():
            self._durable[topic] = TopicState(state.appended + count, state.mark)
