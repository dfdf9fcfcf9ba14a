"""Logs: one JSON object a line, with the request's id and its trace's, and without any memory, question or credential.

An exception is logged as its type and the places it passed, without its message: a driver's or parser's message often
quotes the value it choked on. Django's own request log is reduced the same way, for it names raw paths.
"""

import logging
import traceback
from contextvars import ContextVar
from types import TracebackType
from typing import Any

from pythonjsonlogger.json import JsonFormatter

from memory.tracing import trace_id

request_id: ContextVar[str | None] = ContextVar("request_id", default=None)

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]

# Django's database log puts statements and their parameters into the record.
NEVER_LOGGED = frozenset({"sql", "params", "request", "response"})


class RequestFilter(logging.Filter):
    """Gives every record the id of the request it belongs to, and of the trace where one is recorded."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id, record.trace_id = request_id.get(), trace_id()
        return True


class PathFilter(logging.Filter):
    """Takes raw paths out of the logs of Django's requests and of the server; the access log names the route."""

    def filter(self, record: logging.LogRecord) -> bool:
        if not record.exc_info:
            # An answered error has its line in the access log.
            return record.name != "django.request"
        record.msg, record.args = "unhandled exception", ()
        return True


class SecurityFilter(logging.Filter):
    """Removes hosts, origins and paths that a caller sent from Django's security log; its entries become warnings."""

    def filter(self, record: logging.LogRecord) -> bool:
        if record.name.startswith("django.security"):
            record.reason = record.name.rpartition(".")[2]
            record.msg, record.args, record.exc_info, record.exc_text = "request refused", (), None, None
            record.levelno, record.levelname = logging.WARNING, "WARNING"
        return True


class SafeJsonFormatter(JsonFormatter):
    """Time, level, logger, message, the record's scalar extras, and exceptions without their messages."""

    def __init__(self) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields={"levelname": "level", "name": "logger"},
            timestamp="time",
        )

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        return {
            key: value
            for key, value in log_data.items()
            if key == "time"
            or (key not in NEVER_LOGGED and isinstance(value, str | int | float | list) and value is not None)
        }

    def formatException(self, ei: ExcInfo) -> list[str]:  # type: ignore[override]  # noqa: N802
        return list(_causes(ei[1]))


def _causes(exc: BaseException | None) -> Any:
    """One line an exception, outermost first: its type and its frames, never its message."""
    seen: set[int] = set()
    while exc is not None and id(exc) not in seen:
        seen.add(id(exc))
        frames = traceback.extract_tb(exc.__traceback__)
        places = [f"{frame.filename}:{frame.lineno} {frame.name}" for frame in frames]
        yield f"{type(exc).__module__}.{type(exc).__qualname__}: " + " > ".join(places)
        exc = exc.__cause__ or exc.__context__
