"""Spans of OpenTelemetry around a request, a job and their stages; nothing at all where its API is not installed.

Spans are made through the API alone: who sets up an SDK (docs/howto/trace.md) gets them, and without one none are made.
Names and attributes are ours: never a text, a user, a path or a credential. An exception is told by its type, because
its message may quote what it choked on.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import lru_cache
from typing import Any

try:
    from opentelemetry import trace
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError:  # an optional requirement: requirements-otel.txt
    trace = None  # type: ignore[assignment]

TRACER = "sealed_memory"
CONTEXT_HEADERS = ("traceparent", "tracestate")  # of W3C Trace Context; its baggage is not read: it may name a user

Attribute = str | int | float | bool
_NOTHING: AbstractContextManager[Any] = nullcontext()


def span(name: str) -> AbstractContextManager[Any]:
    """A span around a stage of the request or job that is under way in this thread or task; none where none is
    recorded."""
    return _span(name) if _wanted() and trace.get_current_span().is_recording() else _NOTHING


def job_span(name: str) -> AbstractContextManager[Any]:
    """The span of a job, which begins a trace unless one is under way."""
    return _span(name) if _wanted() else _NOTHING


def request_span(name: str, headers: Mapping[str, str]) -> AbstractContextManager[Any]:
    """The span of a request, which continues its caller's trace where `headers` name one."""
    if not _wanted():
        return _NOTHING
    carried = {name: headers[name] for name in CONTEXT_HEADERS if name in headers}
    caller = TraceContextTextMapPropagator().extract(carried)
    return _span(name, context=caller, kind=trace.SpanKind.SERVER)


def describe(current: Any, name: str = "", **attributes: Attribute | None) -> None:
    """Give a span that one of these opened its name and attributes; those that are None are left out."""
    if current is None or not current.is_recording():
        return
    if name:
        current.update_name(name)
    current.set_attributes({key: value for key, value in attributes.items() if value is not None})


def trace_id() -> str | None:
    """The trace that is under way here, as its 32 hex digits; None where none is recorded."""
    if not _wanted():
        return None
    current = trace.get_current_span()
    return f"{current.get_span_context().trace_id:032x}" if current.is_recording() else None


def _wanted() -> bool:
    """Whether the API is there and an SDK is set up behind it."""
    return trace is not None and not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


@lru_cache(maxsize=1)
def _tracer(provider: Any) -> Any:
    return provider.get_tracer(TRACER)


@contextmanager
def _span(name: str, **options: Any) -> Iterator[Any]:
    with _tracer(trace.get_tracer_provider()).start_as_current_span(
        name, record_exception=False, set_status_on_exception=False, **options
    ) as current:
        try:
            yield current
        except Exception as error:
            current.set_status(trace.StatusCode.ERROR)
            current.set_attribute("error.type", type(error).__qualname__)
            raise
