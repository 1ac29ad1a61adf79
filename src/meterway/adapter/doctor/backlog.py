"""Do messages leave a spool, and are they confirmed?"""

from datetime import datetime
from pathlib import Path
from typing import Final

from meterway.adapter.doctor.check import Check, skipped
from meterway.core.errors import SetupError
from meterway.delivery.look import look

LATE_S: Final = 60.0
"""Longer than a message is sent and not confirmed, sent again, and confirmed."""


def look_at_spool(
    directory: Path, receiver: str, now: datetime, *, is_running: bool, name: str = "spool"
) -> tuple[list[Check], int]:
    """Return what is to be said of the spool in ``directory``, and how many messages wait there.

    ``receiver`` is who confirms them: "the concentrator". ``is_running``: they are being sent.
    """
    try:
        waiting = look(directory)
    except SetupError as error:
        fix = f"run this as the user whose the spool is: sudo -u $(stat -c %U {directory}) meterway doctor ..."
        return [Check(name, ok=False, detail=str(error), fix=fix, code="spool")], 0
    if waiting is None:
        return [skipped(name, f"nothing was ever stored in {directory}", code="spool")], 0
    if waiting.oldest is None:
        return [Check(name, ok=True, detail=f"nothing waits in {directory}", code="spool")], 0
    age_s = (now - waiting.oldest).total_seconds()
    detail = f"{waiting.messages} messages wait in {directory}, the oldest for {age_s:.0f} s"
    if not is_running:
        return [Check(name, ok=True, detail=f"{detail}; nothing runs that sends them", code="spool")], waiting.messages
    if age_s <= LATE_S:
        return [Check(name, ok=True, detail=detail, code="spool")], waiting.messages
    fix = f"is {receiver} running, and connected to the same broker? its status and log say why it does not confirm"
    detail = f"{detail}: {receiver} does not confirm"
    return [Check(name, ok=False, detail=detail, fix=fix, code="not-confirmed")], waiting.messages
