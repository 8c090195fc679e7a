"""Run as a process: emits numbered events and prints the ids that it then may rely on.

An event that is refused is emitted again with the same event id, as an application would.
"""

from __future__ import annotations

import sys
import threading
from uuid import NAMESPACE_OID, uuid5

from webhooks_celery import EmitError, emit
from webhooks_celery.celery import app

#: Before an event that was refused is emitted again, in seconds.
PAUSE = 0.2


def main(first: int, last: int) -> None:
    for number in range(first, last):
        event_id = uuid5(NAMESPACE_OID, str(number))
        while True:
            try:
                ids = emit("Numbered", {"number": number}, event_id=event_id, app=app)
            except EmitError as error:
                print("refused", error, flush=True)
                threading.Event().wait(PAUSE)
            else:
                print("accepted", *ids, flush=True)
                break


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
