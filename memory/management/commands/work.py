"""`manage.py work`: does the index calls that were accepted to be done later."""

import signal
import threading
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from keys import heartbeat
from memory.operations.worker import Worker


class Command(BaseCommand):
    help = (
        "Do the index calls that the servers accepted with 202, until SIGTERM or SIGINT, which hand the call that is"
        " under way back to the queue. For fleets: servers with MEMORY_WORK_IN_SERVER=false leave them to this."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--until-empty", action="store_true", help="end when no call waits any more")

    def handle(self, *args: Any, until_empty: bool, **options: Any) -> None:
        worker = Worker()

        def stop(*_: Any) -> None:
            # In a thread: the main one may be interrupted while it holds the lock that this takes.
            threading.Thread(target=worker.stop).start()

        before = {number: signal.signal(number, stop) for number in _ending_signals()}
        heartbeat.start("work")  # so that a rotation knows which keys this process holds
        try:
            done = worker.run_until_empty() if until_empty else worker.run()
        finally:
            heartbeat.stop()
            for number, handler in before.items():
                signal.signal(number, handler)
        self.stdout.write(f"{done} calls were done or tried.")


def _ending_signals() -> tuple[signal.Signals, ...]:
    on_main_thread = threading.current_thread() is threading.main_thread()
    return (signal.SIGTERM, signal.SIGINT) if on_main_thread else ()
