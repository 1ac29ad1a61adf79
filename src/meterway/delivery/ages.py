"""How old the oldest pending message is, without remembering the time of each. Pure."""

from collections import deque

LIMIT_MARKS = 4096


class Ages:
    """Remembers when some messages were appended; gets coarser, not larger, as a backlog grows."""

    def __init__(self) -> None:
        self._marks: deque[tuple[int, int]] = deque()
        self._step_s = 1

    def mark(self, number: int, time_s: int) -> None:
        """Tell that ``number`` was appended at ``time_s``; numbers rise."""
        if self._marks and time_s - self._marks[-1][1] < self._step_s:
            return
        self._marks.append((number, time_s))
        if len(self._marks) > LIMIT_MARKS:
            self._marks = deque(mark for at, mark in enumerate(self._marks) if at % 2 == 0)
            self._step_s *= 2

    def oldest_s(self, first_pending: int) -> int | None:
        """Return when the oldest pending message was appended, or somewhat earlier; forgets those before it."""
        while len(self._marks) > 1 and self._marks[1][0] <= first_pending:
            self._marks.popleft()
        if len(self._marks) <= 1:
            self._step_s = 1
        return self._marks[0][1] if self._marks else None
