"""What a run of virtual meters counts; printed as JSON at its end."""

import msgspec


class Counters(msgspec.Struct):
    telegrams_whole: int = 0
    """Handed completely to at least one reader, unchanged."""
    telegrams_spoilt: int = 0
    """Handed completely to at least one reader, as a fault left them."""
    telegrams_silent: int = 0
    """Swallowed by a fault."""
    telegrams_missed: int = 0
    """Not sent to a pty whose reader had not yet taken the one before."""
    ticks_unheard: int = 0
    """Instants at which nobody was there to read."""
    ticks_skipped: int = 0
    """Instants left out because the process could not keep up with ``--speed``."""
    bytes_sent: int = 0
    readers_dropped: int = 0
    """TCP readers that left too much unread."""
    readers_refused: int = 0
    """TCP readers beyond the limit of one port."""
    telegrams_cut_by_stop: int = 0
    """Lines whose reader had not taken the end of a telegram when the time to stop was over."""
