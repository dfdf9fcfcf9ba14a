"""Spans as an SDK receives them: of requests, their stages and jobs, and without a word of what they are about."""

import json
import logging
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import pytest
from django.test import Client

from memory import tracing
from memory.operations.worker import Worker
from project.logs import RequestFilter
from tests.factories import ALICE, API, api_client, index, make_service, recall, remember, vector
from tests.memory.operations.queued import forget_the_total, queue_call

sdk = pytest.importorskip("opentelemetry.sdk.trace")
export = pytest.importorskip("opentelemetry.sdk.trace.export")
in_memory = pytest.importorskip("opentelemetry.sdk.trace.export.in_memory_span_exporter")

TRACE, CALLER = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
SECRET = "plantedsecret"

Spans = Sequence[Any]


@pytest.fixture
def exporter(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Receives every span that ends. (The API lets a process set its provider once, so it is put in its place.)"""
    exporter, provider = in_memory.InMemorySpanExporter(), sdk.TracerProvider()
    provider.add_span_processor(export.SimpleSpanProcessor(exporter))
    monkeypatch.setattr(tracing.trace, "get_tracer_provider", lambda: provider)
    yield exporter
    provider.shutdown()


def ask(client: Client, **headers: str) -> Any:
    body = {"query": f"what is {SECRET}", "embedding": vector(1), "top_k": 3}
    return client.post(f"{API}/memories/query", body, content_type="application/json", headers=headers)


def child_names(spans: Spans, name: str) -> list[str]:
    """The names of the spans directly below the one of a name, in the order in which they began."""
    (parent,) = (span for span in spans if span.name == name)
    below = [span for span in spans if span.parent and span.parent.span_id == parent.context.span_id]
    return [span.name for span in sorted(below, key=lambda span: span.start_time)]


@pytest.mark.django_db
def test_a_query_has_a_span_for_each_of_its_stages(exporter: Any) -> None:
    client = api_client(make_service(), user="u")
    index(client)
    exporter.clear()
    assert ask(client).status_code == 200
    spans = exporter.get_finished_spans()
    request = "POST api/v1/memories/query"
    stages = ["query embed", "query candidates", "query open", "query rerank"]
    assert child_names(spans, request) == ["authenticate", *stages]
    assert child_names(spans, "query candidates") == ["search exact"]
    assert len({span.context.trace_id for span in spans}) == 1


@pytest.mark.django_db
def test_writing_has_spans_for_embedding_and_sealing(exporter: Any) -> None:
    index(api_client(make_service(), user="u"))
    spans = exporter.get_finished_spans()
    assert child_names(spans, "POST api/v1/memories/index") == ["authenticate", "index embed", "index write"]
    assert set(child_names(spans, "index write")) == {"seal"}


@pytest.mark.django_db
def test_the_span_of_a_request_says_what_the_access_log_says(exporter: Any) -> None:
    response = api_client(make_service(), user="u").get(f"{API}/memories/{SECRET}?q={SECRET}")
    (span,) = (span for span in exporter.get_finished_spans() if span.kind is tracing.trace.SpanKind.SERVER)
    assert span.attributes["http.response.status_code"] == response.status_code == 404
    assert span.attributes["request_id"] == response["X-Request-ID"]
    assert span.attributes["http.request.method"] == "GET"
    assert SECRET not in span.to_json()


@pytest.mark.django_db
def test_a_request_continues_the_trace_of_its_caller(exporter: Any) -> None:
    ask(api_client(make_service(), user="u"), traceparent=f"00-{TRACE}-{CALLER}-01")
    spans = exporter.get_finished_spans()
    assert {f"{span.context.trace_id:032x}" for span in spans} == {TRACE}
    (request,) = (span for span in spans if span.kind is tracing.trace.SpanKind.SERVER)
    assert f"{request.parent.span_id:016x}" == CALLER


@pytest.mark.parametrize("given", ["", "00-0-0-01", f"00-{TRACE}-{'0' * 16}-01", SECRET, f"ff-{TRACE}-{CALLER}-01"])
def test_what_is_no_trace_context_begins_a_new_trace(exporter: Any, given: str) -> None:
    assert Client(headers={"traceparent": given}).get("/nothing").status_code == 404
    (span,) = exporter.get_finished_spans()
    assert span.parent is None
    assert f"{span.context.trace_id:032x}" != TRACE


@pytest.mark.django_db
@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics"])
def test_probes_have_no_spans(exporter: Any, path: str) -> None:
    api_client(make_service(), user="u").get(path)
    assert exporter.get_finished_spans() == ()


@pytest.mark.django_db
def test_a_stage_outside_of_a_request_or_job_has_none(exporter: Any) -> None:
    remember(ALICE, "a", "words")
    recall(ALICE, "words")
    assert exporter.get_finished_spans() == ()


@pytest.mark.django_db
def test_a_request_that_its_caller_does_not_record_has_none(exporter: Any) -> None:
    ask(api_client(make_service(), user="u"), traceparent=f"00-{TRACE}-{CALLER}-00")
    assert exporter.get_finished_spans() == ()


@pytest.mark.django_db
def test_no_text_user_or_credential_is_in_a_span(exporter: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    token = make_service(f"n-{SECRET}")
    client = api_client(token, user=f"u-{SECRET}")
    told = {"doc_id": SECRET, "source": SECRET, "title": SECRET, "metadata": {SECRET: SECRET}}
    index(client, SECRET, **told)
    ask(client, baggage=f"user={SECRET}")
    client.get(f"{API}/documents/{SECRET}")
    client.get(f"{API}/memories?source={SECRET}")
    monkeypatch.setattr("memory.search.retrieval.search_parameters", _quoting)
    assert ask(client).status_code == 500
    client.delete(f"{API}/documents/{SECRET}")
    Client(headers={"Authorization": f"Bearer {SECRET}"}).get(f"{API}/memories")
    exported = "".join(span.to_json() for span in exporter.get_finished_spans())
    assert SECRET not in exported
    assert token not in exported
    assert exported.count("authenticate") == 7


def _quoting(*args: Any, **options: Any) -> Any:
    raise ValueError(f"could not parse {SECRET}")


@pytest.mark.django_db
def test_an_error_is_told_by_its_type(exporter: Any) -> None:
    with pytest.raises(ValueError), tracing.job_span("job"):
        raise ValueError(SECRET)
    (span,) = exporter.get_finished_spans()
    assert (span.attributes["error.type"], span.status.status_code.name) == ("ValueError", "ERROR")
    assert span.events == () and span.status.description is None


@pytest.mark.django_db(transaction=True)
def test_a_job_is_a_trace_of_its_own(exporter: Any) -> None:
    forget_the_total()
    queue_call("a", SECRET)
    exporter.clear()
    assert Worker().run_until_empty() == 1
    spans = exporter.get_finished_spans()
    assert child_names(spans, "job index") == ["index embed", "index write"]
    (job,) = (span for span in spans if span.name == "job index")
    assert job.parent is None
    assert job.attributes == {"outcome": "succeeded", "attempts": 1}
    assert SECRET not in "".join(span.to_json() for span in spans)


def test_log_lines_name_the_trace(exporter: Any) -> None:
    record = logging.makeLogRecord({})
    with tracing.job_span("job") as span:
        RequestFilter().filter(record)
    assert record.trace_id == f"{span.context.trace_id:032x}"  # type: ignore[attr-defined]
    RequestFilter().filter(record)
    assert record.trace_id is None  # type: ignore[attr-defined]


@pytest.mark.parametrize("missing", ["opentelemetry", "opentelemetry.sdk"])
def test_without_the_api_or_an_sdk_nothing_is_made(missing: str) -> None:
    said = subprocess.run([sys.executable, "-c", PROBE, missing], capture_output=True, text=True, check=True)
    assert json.loads(said.stdout) == {"span": None, "request": None, "trace_id": None, "same": True}


PROBE = """
import json, sys
sys.modules[sys.argv[1]] = None  # as if it were not installed
from memory import tracing
assert (tracing.trace is None) == (sys.argv[1] == "opentelemetry")
with tracing.span("stage") as span, tracing.request_span("GET", {"traceparent": "x"}) as request:
    tracing.describe(span, "name", status=200)
    same = tracing.span("a") is tracing.span("b")
    print(json.dumps({"span": span, "request": request, "trace_id": tracing.trace_id(), "same": same}))
"""
