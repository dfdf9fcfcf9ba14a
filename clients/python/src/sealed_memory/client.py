"""The two clients: the same verbs (`sealed_memory.calls`), one for threads, one for async code."""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from functools import wraps
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import httpx2

from sealed_memory import calls
from sealed_memory.calls import Call, Pages, Pause, Steps
from sealed_memory.models import Memory
from sealed_memory.retries import Retries
from sealed_memory.sending import Attempt, Lines, Sender, Work

P = ParamSpec("P")
T = TypeVar("T")
DEFAULT_TIMEOUT = 30.0


def _described_by(described: Callable[..., Any]) -> Callable[[Callable[..., Any]], Any]:
    """Give a method the name, the documentation and the parameters of a verb."""

    def describe(method: Callable[..., Any]) -> Any:
        wraps(described)(method)
        del method.__wrapped__  # type: ignore[attr-defined]
        of_verb = inspect.signature(described)
        this = inspect.Parameter("self", inspect.Parameter.POSITIONAL_ONLY)
        method.__signature__ = of_verb.replace(  # type: ignore[attr-defined]
            parameters=[this, *of_verb.parameters.values()], return_annotation=inspect.Signature.empty
        )
        return method

    return describe


# --- For threads ------------------------------------------------------------------------------------------------------


def _done(verb: Callable[P, Steps[T]]) -> Callable[Concatenate["Client", P], T]:
    @_described_by(verb)
    def method(self: "Client", *args: P.args, **kwargs: P.kwargs) -> T:
        return self.run(verb(*args, **kwargs))

    return method


def _each(verb: Callable[P, Pages]) -> Callable[Concatenate["Client", P], Iterator[Memory]]:
    @_described_by(verb)
    def method(self: "Client", *args: P.args, **kwargs: P.kwargs) -> Iterator[Memory]:
        steps, cursor, more = verb(*args, **kwargs), None, True
        while more:
            page = self.run(steps(cursor))
            yield from page.memories
            cursor, more = page.next_cursor, page.next_cursor is not None

    return method


def _streamed(verb: Callable[P, Call[None]]) -> Callable[Concatenate["Client", P], Iterator[bytes]]:
    @_described_by(verb)
    def method(self: "Client", *args: P.args, **kwargs: P.kwargs) -> Iterator[bytes]:
        lines, response = Lines(), self._driven(self._sender.attempts(verb(*args, **kwargs)))
        try:
            for received in response.iter_bytes():
                yield from lines.taken(received)
        except httpx2.TransportError as failure:
            lines.fail(failure)
        finally:
            response.close()
        lines.finish()

    return method


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
        self._sender = Sender(base_url, token, user, retries)
        self._http = http or httpx2.Client(timeout=timeout)

    index = _done(calls.index)
    index_later = _done(calls.index_later)
    operation = _done(calls.operation)
    wait = _done(calls.wait)
    query = _done(calls.query)
    page = _done(calls.page)
    memories = _each(calls.memories)
    get = _done(calls.get)
    get_many = _done(calls.get_many)
    document = _done(calls.document)
    document_page = _done(calls.document_page)
    export = _streamed(calls.export)
    update = _done(calls.update)
    update_document = _done(calls.update_document)
    delete = _done(calls.delete)
    delete_many = _done(calls.delete_many)
    delete_document = _done(calls.delete_document)
    erase = _done(calls.erase)

    def for_user(self, user: str) -> "Client":
        """The same service, token and connections, and another user's memory."""
        sender = self._sender
        return Client(sender.base_url, token=sender.token, user=user, retries=sender.retries, http=self._http)

    def run(self, steps: Steps[T]) -> T:
        """Carry out steps: a verb of `sealed_memory.calls`, or several in a generator of yours."""
        return self._driven(self._sender.work(steps))

    def close(self) -> None:
        """Close the connections, those of `for_user`'s clients as well."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _driven(self, work: Work[T]) -> T:
        outcome = None
        while True:
            try:
                needed = work.send(outcome)
            except StopIteration as ended:
                result: T = ended.value
                return result
            outcome = self._met(needed)

    def _met(self, needed: Attempt | Pause) -> httpx2.Response | httpx2.TransportError | None:
        if isinstance(needed, Pause):
            time.sleep(needed.seconds)
            return None
        try:
            response = self._http.send(self._sender.request(self._http, needed), stream=needed.call.streamed)
            if not response.is_success:
                response.read()
            return response
        except httpx2.TransportError as failure:
            return failure


# --- For async code ---------------------------------------------------------------------------------------------------


def _awaited(verb: Callable[P, Steps[T]]) -> Callable[Concatenate["AsyncClient", P], Coroutine[Any, Any, T]]:
    @_described_by(verb)
    async def method(self: "AsyncClient", *args: P.args, **kwargs: P.kwargs) -> T:
        return await self.run(verb(*args, **kwargs))

    return method


def _each_awaited(verb: Callable[P, Pages]) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[Memory]]:
    @_described_by(verb)
    async def method(self: "AsyncClient", *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[Memory]:
        steps, cursor, more = verb(*args, **kwargs), None, True
        while more:
            page = await self.run(steps(cursor))
            for memory in page.memories:
                yield memory
            cursor, more = page.next_cursor, page.next_cursor is not None

    return method


def _stream_awaited(verb: Callable[P, Call[None]]) -> Callable[Concatenate["AsyncClient", P], AsyncIterator[bytes]]:
    @_described_by(verb)
    async def method(self: "AsyncClient", *args: P.args, **kwargs: P.kwargs) -> AsyncIterator[bytes]:
        lines, response = Lines(), await self._driven(self._sender.attempts(verb(*args, **kwargs)))
        try:
            async for received in response.aiter_bytes():
                for line in lines.taken(received):
                    yield line
        except httpx2.TransportError as failure:
            lines.fail(failure)
        finally:
            await response.aclose()
        lines.finish()

    return method


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
        self._sender = Sender(base_url, token, user, retries)
        self._http = http or httpx2.AsyncClient(timeout=timeout)

    index = _awaited(calls.index)
    index_later = _awaited(calls.index_later)
    operation = _awaited(calls.operation)
    wait = _awaited(calls.wait)
    query = _awaited(calls.query)
    page = _awaited(calls.page)
    memories = _each_awaited(calls.memories)
    get = _awaited(calls.get)
    get_many = _awaited(calls.get_many)
    document = _awaited(calls.document)
    document_page = _awaited(calls.document_page)
    export = _stream_awaited(calls.export)
    update = _awaited(calls.update)
    update_document = _awaited(calls.update_document)
    delete = _awaited(calls.delete)
    delete_many = _awaited(calls.delete_many)
    delete_document = _awaited(calls.delete_document)
    erase = _awaited(calls.erase)

    def for_user(self, user: str) -> "AsyncClient":
        """The same service, token and connections, and another user's memory."""
        sender = self._sender
        return AsyncClient(sender.base_url, token=sender.token, user=user, retries=sender.retries, http=self._http)

    async def run(self, steps: Steps[T]) -> T:
        """Carry out steps: a verb of `sealed_memory.calls`, or several in a generator of yours."""
        return await self._driven(self._sender.work(steps))

    async def close(self) -> None:
        """Close the connections, those of `for_user`'s clients as well."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def _driven(self, work: Work[T]) -> T:
        outcome = None
        while True:
            try:
                needed = work.send(outcome)
            except StopIteration as ended:
                result: T = ended.value
                return result
            outcome = await self._met(needed)

    async def _met(self, needed: Attempt | Pause) -> httpx2.Response | httpx2.TransportError | None:
        if isinstance(needed, Pause):
            await asyncio.sleep(needed.seconds)
            return None
        try:
            response = await self._http.send(self._sender.request(self._http, needed), stream=needed.call.streamed)
            if not response.is_success:
                await response.aread()
            return response
        except httpx2.TransportError as failure:
            return failure
