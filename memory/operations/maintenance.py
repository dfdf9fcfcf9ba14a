"""Does the maintenance that somebody asked for in the admin: verify, purge. One process does each, in a thread.

When the process is told to end, the job is handed back at the next portion of rows, and another process begins it anew.
"""

import logging
from collections.abc import Callable

from django.db import connections

from keys import jobs
from keys.exceptions import JobRefused, LeaseTaken
from keys.jobs import HandedBack, Job, JobProgress
from memory.rotation.findings import Inspection
from memory.rotation.integrity import inspect_all
from memory.tenancy.census import totals_by_hmac_key
from memory.verbs.expiry import purge_expired

logger = logging.getLogger(__name__)
FINDINGS_SHOWN = 10


def do_waiting(should_stop: Callable[[], bool]) -> None:
    """Do every job that waits, until `should_stop`. An error ends that job alone, and is logged by its kind."""
    for job in jobs.waiting():
        try:
            _do(job, should_stop)
        except (LeaseTaken, JobRefused):
            pass  # another process was faster
        except Exception as error:  # noqa: BLE001  (the record says that it failed)
            logger.error("a maintenance job failed", extra={"job": job.value, "reason": type(error).__name__})
        finally:
            connections.close_all()


def verified(seen: Inspection) -> str:
    """What an inspection found, in numbers and row ids, without content."""
    checked = f"{seen.tenants:,} tenants, {seen.rows:,} rows opened, {seen.drifted:,} under another key than they name."
    if not seen.found:
        return f"Everything is as it should be: {checked}"
    shown = "; ".join(map(str, seen.findings[:FINDINGS_SHOWN]))
    return f"{seen.found:,} things are not as they should be: {shown}. {checked} manage.py verify_integrity names more."


def _do(job: Job, should_stop: Callable[[], bool]) -> None:
    total = sum(chunks for _, chunks in totals_by_hmac_key().values()) if job == Job.VERIFY else 0
    with jobs.running(job, total=total) as progress:

        def advance(rows: int) -> None:
            if should_stop():
                raise HandedBack
            progress.advance(rows)

        if job == Job.VERIFY:
            _verify(progress, advance)
        else:
            _purge(progress, advance)


def _verify(progress: JobProgress, advance: Callable[[int], None]) -> None:
    seen = inspect_all(advance=advance)
    progress.succeeded, progress.message = not seen.found, verified(seen)


def _purge(progress: JobProgress, advance: Callable[[int], None]) -> None:
    purged = purge_expired(progress=advance)
    rows = purged.deleted["memory_chunks"]
    progress.succeeded, progress.message = True, f"{rows:,} chunks of {purged.tenants:,} tenants deleted."
