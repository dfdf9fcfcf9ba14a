"""The two clients: the same verbs, one for threads, one for async code."""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from typing import Any, Self, TypeVar

import httpx2

from sealed_memory import calls
from sealed_memory.calls import Call
from sealed_memory.errors import NoAnswer, ServerError, error_from
from sealed_memory.models import Answer, Document, ErasureReceipt, IndexedDocument, Match, Memory, Page
from sealed_memory.retries import Retries, idempotency_key

T = TypeVar("T")
DEFAULT_TIMEOUT = 30.0
__all__ = ["AsyncClient", "Client", "Match"]


def _address(base_url: str | None) -> str:
    found = base_url or os.environ.get("SEALED_MEMORY_URL")
    if not found:
        raise ValueError("Give base_url, or set SEALED_MEMORY_URL.")
    return found.rstrip("/")


def _headers(token: str | None, user: str | None) -> dict[bytes, bytes]:
    secret = token or os.environ.get("SEALED_MEMORY_TOKEN")
    if not secret:
        raise ValueError("Give token, or set SEALED_MEMORY_TOKEN.")
    named = {} if user is None else {b"X-Memory-User": user.encode()}
    return {b"Authorization": f"Bearer {secret}".encode(), b"Accept": b"application/json", **named}


def _read(call: Call[T], response: httpx2.Response) -> T:
    """The result of an answer. Raises ServerError."""
    try:
        body = response.json()
    except ValueError:
        body = None
    if response.is_success and body is not None:
        return call.read(body)
    raise error_from(response.status_code, body, response.headers)


def _documents(text: str | None, documents: Sequence[Document] | None, described: Mapping[str, Any]) -> list[Document]:
    if (text is None) == (documents is None):
        raise ValueError("Give either a text or documents.")
    return list(documents) if documents is not None else [Document(text=text, **described)]


class Client:
    """For threads. `user` names whose memory it is, with a service's token; `for_user` gives a client for another."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        user: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008  (frozen)
        http: httpx2.Client | None = None,
    ) -> None:
        self._base_url, self._token, self._retries = _address(base_url), token, retries
        self._headers = _headers(token, user)
        self._http = http or httpx2.Client(timeout=timeout)

    def for_user(self, user: str) -> "Client":
        """The same service, token and connections, and another user's memory."""
        return Client(self._base_url, token=self._token, user=user, retries=self._retries, http=self._http)

    def close(self) -> None:
        """Close the connections, those of `for_user`'s clients as well."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def index(
        self, text: str | None = None, *, documents: Sequence[Document] | None = None, **described: Any
    ) -> list[IndexedDocument]:
        """Store one text (with Document's other members as keywords) or many documents, all of them or none."""
        return self.send(calls.index(_documents(text, documents, described)))

    def query(self, text: str, *, top_k: int = 10, **options: Any) -> Answer:
        """The memories that answer best, best first. Options: the members of the API's query, such as `source`."""
        return self.send(calls.query(text, top_k, options))

    def page(self, *, limit: int = 50, cursor: str | None = None, **options: Any) -> Page:
        """One page of memories, newest first."""
        return self.send(calls.page({"limit": limit, "cursor": cursor, **options}))

    def memories(self, **options: Any) -> Iterator[Memory]:
        """Every memory, newest first, page by page."""
        cursor = None
        while True:
            page = self.page(cursor=cursor, **options)
            yield from page.memories
            if (cursor := page.next_cursor) is None:
                return

    def get(self, memory_id: str) -> Memory:
        """One memory. Raises NotFound."""
        return self.send(calls.get(memory_id))

    def update(self, memory_id: str, *, text: str | None = None, metadata: Mapping[str, Any] | None = None) -> Memory:
        """Change a memory; `metadata` is merged (RFC 7396). Raises NotFound."""
        return self.send(calls.update(memory_id, {"text": text, "metadata": metadata}))

    def delete(self, memory_id: str) -> int:
        """Delete one memory. Raises NotFound."""
        return self.send(calls.delete(memory_id))

    def document(self, doc_id: str) -> list[Memory]:
        """A document's memories, in its order. Raises NotFound."""
        found, cursor = self.send(calls.document(doc_id, None))
        while cursor is not None:
            more, cursor = self.send(calls.document(doc_id, cursor))
            found += more
        return found

    def delete_document(self, doc_id: str) -> int:
        """Delete a document; how many memories it had. Raises NotFound."""
        return self.send(calls.delete_document(doc_id))

    def erase(self) -> ErasureReceipt:
        """Delete everything of this user."""
        return self.send(calls.erase())

    def send(self, call: Call[T]) -> T:
        """Send a call, again where that can help. Raises ServerError or NoAnswer."""
        headers = {**self._headers, **idempotency_key(call.method)}
        attempt = 0
        while True:
            attempt += 1
            error: ServerError | None = None
            try:
                return _read(
                    call,
                    self._http.request(
                        call.method,
                        self._base_url + call.path,
                        headers=headers,
                        json=call.body,
                        params=call.parameters or None,
                    ),
                )
            except httpx2.TransportError as failure:
                reason: Exception = NoAnswer(f"No answer from the service: {type(failure).__name__}.")
                reason.__cause__ = failure
            except ServerError as failure:
                reason = error = failure
            if (wait := self._retries.wait(attempt, error)) is None:
                raise reason
            time.sleep(wait)


class AsyncClient:
    """For async code; otherwise as Client."""

    def __init__(
        self,
        base_url: str | None = None,
        *,
        token: str | None = None,
        user: str | None = None,
        timeout: float = DEFAULT_TIMEOUT,
        retries: Retries = Retries(),  # noqa: B008  (frozen)
        http: httpx2.AsyncClient | None = None,
    ) -> None:
        self._base_url, self._token, self._retries = _address(base_url), token, retries
        self._headers = _headers(token, user)
        self._http = http or httpx2.AsyncClient(timeout=timeout)

    def for_user(self, user: str) -> "AsyncClient":
        """The same service, token and connections, and another user's memory."""
        return AsyncClient(self._base_url, token=self._token, user=user, retries=self._retries, http=self._http)

    async def close(self) -> None:
        """Close the connections, those of `for_user`'s clients as well."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def index(
        self, text: str | None = None, *, documents: Sequence[Document] | None = None, **described: Any
    ) -> list[IndexedDocument]:
        """Store one text (with Document's other members as keywords) or many documents, all of them or none."""
        return await self.send(calls.index(_documents(text, documents, described)))

    async def query(self, text: str, *, top_k: int = 10, **options: Any) -> Answer:
        """The memories that answer best, best first. Options: the members of the API's query, such as `source`."""
        return await self.send(calls.query(text, top_k, options))

    async def page(self, *, limit: int = 50, cursor: str | None = None, **options: Any) -> Page:
        """One page of memories, newest first."""
        return await self.send(calls.page({"limit": limit, "cursor": cursor, **options}))

    async def memories(self, **options: Any) -> AsyncIterator[Memory]:
        """Every memory, newest first, page by page."""
        cursor = None
        while True:
            page = await self.page(cursor=cursor, **options)
            for memory in page.memories:
                yield memory
            if (cursor := page.next_cursor) is None:
                return

    async def get(self, memory_id: str) -> Memory:
        """One memory. Raises NotFound."""
        return await self.send(calls.get(memory_id))

    async def update(
        self, memory_id: str, *, text: str | None = None, metadata: Mapping[str, Any] | None = None
    ) -> Memory:
        """Change a memory; `metadata` is merged (RFC 7396). Raises NotFound."""
        return await self.send(calls.update(memory_id, {"text": text, "metadata": metadata}))

    async def delete(self, memory_id: str) -> int:
        """Delete one memory. Raises NotFound."""
        return await self.send(calls.delete(memory_id))

    async def document(self, doc_id: str) -> list[Memory]:
        """A document's memories, in its order. Raises NotFound."""
        found, cursor = await self.send(calls.document(doc_id, None))
        while cursor is not None:
            more, cursor = await self.send(calls.document(doc_id, cursor))
            found += more
        return found

    async def delete_document(self, doc_id: str) -> int:
        """Delete a document; how many memories it had. Raises NotFound."""
        return await self.send(calls.delete_document(doc_id))

    async def erase(self) -> ErasureReceipt:
        """Delete everything of this user."""
        return await self.send(calls.erase())

    async def send(self, call: Call[T]) -> T:
        """Send a call, again where that can help. Raises ServerError or NoAnswer."""
        headers = {**self._headers, **idempotency_key(call.method)}
        attempt = 0
        while True:
            attempt += 1
            error: ServerError | None = None
            try:
                return _read(
                    call,
                    await self._http.request(
                        call.method,
                        self._base_url + call.path,
                        headers=headers,
                        json=call.body,
                        params=call.parameters or None,
                    ),
                )
            except httpx2.TransportError as failure:
                reason: Exception = NoAnswer(f"No answer from the service: {type(failure).__name__}.")
                reason.__cause__ = failure
            except ServerError as failure:
                reason = error = failure
            if (wait := self._retries.wait(attempt, error)) is None:
                raise reason
            await asyncio.sleep(wait)
