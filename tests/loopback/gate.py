"""The gate that every call passes: key, fault, record, the one lock, and a mistake's status."""

from __future__ import annotations

import re
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from types import MappingProxyType
from typing import Any, NamedTuple, NoReturn, Protocol

import grpc  # type: ignore[import-untyped]

from tests.loopback.access import Access, Rights, is_read
from tests.loopback.faults import Cut, Fault, FaultPlan, Held, LostAnswer, Refused, Slow
from tests.loopback.names import rpc_name, rpc_of_path
from tests.loopback.proxy import CuttingProxy
from tests.loopback.statuses import Mistake, RefusalError, refusal_in_trouble

# src/tonic/auth.rs: health checks need no key
_OPEN_TO_ALL = frozenset({"Qdrant.HealthCheck"})
_VECTOR_SUFFIX = re.compile(r" for vector '.*'$")


class Received(NamedTuple):
    """A call that reached the server whole: its long name and its message."""

    rpc: str
    message: Any


class RequestLog:
    """The calls that reached the server whole, refused ones too. Thread-safe.

    The last 1000 messages are kept; `count` counts all.
    """

    def __init__(self) -> None:
        self._lock = threading.Condition()
        self._kept: deque[Received] = deque(maxlen=1000)
        self._counts: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Received]:
        with self._lock:
            return iter(list(self._kept))

    def of(self, rpc: str) -> list[Any]:
        """The messages of one call, oldest first; `rpc` as in `FaultPlan.inject`."""
        wanted = rpc_name(rpc)
        return [message for name, message in self if name == wanted]

    def count(self, rpc: str | None = None) -> int:
        """How many calls came since the last `clear`, also those no longer kept."""
        with self._lock:
            return sum(self._counts.values()) if rpc is None else self._counts[rpc_name(rpc)]

    def wait_for(self, rpc: str, count: int = 1, timeout_s: float = 60.0) -> None:
        """Wait until so many calls of that name have come since the last `clear`.

        Raises:
            TimeoutError: they have not.
        """
        wanted = rpc_name(rpc)
        with self._lock:
            if not self._lock.wait_for(lambda: self._counts[wanted] >= count, timeout_s):
                raise TimeoutError(
                    f"{self._counts[wanted]} of {count} calls of {wanted} in {timeout_s} s"
                )

    def clear(self) -> None:
        """Forget everything."""
        with self._lock:
            self._kept.clear()
            self._counts.clear()

    def add(self, rpc: str, message: Any) -> None:
        """Keep a call; the server does this."""
        with self._lock:
            self._kept.append(Received(rpc, message))
            self._counts[rpc] += 1
            self._lock.notify_all()


class Keys(NamedTuple):
    """The API keys that a server knows; without any, everybody may do everything."""

    full: str | None = None
    read_only: str | None = None
    tokens: Mapping[str, Rights] = MappingProxyType({})

    def refuse(self, rpc: str, headers: dict[str, Any]) -> RefusalError | None:
        """Why a call's key does not do, or None when it does."""
        if rpc in _OPEN_TO_ALL or not (self.full or self.read_only or self.tokens):
            return None
        key = _key_of(headers)
        if not key:
            return Mistake.NO_KEY.refusal()
        if key == self.full or key in self.tokens:
            return None
        if key != self.read_only:
            return Mistake.WRONG_KEY.refusal()
        return None if is_read(rpc) else Mistake.READ_ONLY_KEY.refusal()

    def access(self, headers: dict[str, Any]) -> Access | None:
        """The rights of a call's token; None for a key, whose rights `refuse` knows."""
        rights = self.tokens.get(_key_of(headers))
        return None if rights is None else Access(rights)


def _key_of(headers: dict[str, Any]) -> str:
    return str(headers.get("api-key") or headers.get("authorization", "").removeprefix("Bearer "))


class Admission(NamedTuple):
    """Why a call is refused, and else its fault, and the rights of its token if it has one."""

    refusal: RefusalError | None
    fault: Fault | None
    access: Access | None


class Caller(Protocol):
    """The client that waits for an answer, by either port."""

    def cut(self) -> None:
        """Cut its connection."""

    def cut_after(self, count: int) -> None:
        """Cut its connection once so many more bytes came from it."""

    def is_active(self) -> bool:
        """Whether it still waits."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Call when it waits no longer; false when it does not even now."""


class _GrpcCaller:
    """The client of a gRPC call."""

    def __init__(self, context: Any, proxy: CuttingProxy) -> None:
        self.is_active = context.is_active
        self.add_callback = context.add_callback
        self._proxy = proxy
        # of the proxy's own connection that the call came by: `ipv4:127.0.0.1:PORT`
        self._port = int(context.peer().rpartition(":")[2])

    def cut(self) -> None:
        self._proxy.cut(self._port)

    def cut_after(self, count: int) -> None:
        self._proxy.cut_after(count, self._port)


class Gate(grpc.ServerInterceptor):  # type: ignore[misc]  # grpc is untyped
    """Stands before every handler. One gate lives as long as one start of the server."""

    def __init__(
        self,
        keys: Keys,
        faults: FaultPlan,
        requests: RequestLog,
        proxy: CuttingProxy,
        lock: threading.Lock,
    ) -> None:
        self._keys = keys
        self._faults = faults
        self._requests = requests
        self._proxy = proxy
        self._lock = lock
        self._stopping = False
        self._waits: set[threading.Event] = set()
        self._state = threading.Condition()
        self._running = 0

    def stop(self) -> None:
        """End every wait; nothing is applied from now on."""
        with self._state:
            self._stopping = True
            for wait in self._waits:
                wait.set()

    def settle(self, timeout_s: float) -> bool:
        """Wait until no call is being handled; whether that came in time."""
        with self._state:
            return self._state.wait_for(lambda: self._running == 0, timeout_s)

    def admit(self, rpc: str, headers: dict[str, Any]) -> Admission:
        """Judge a call whose headers are here."""
        refusal = self._keys.refuse(rpc, headers)
        fault = self._faults.take(rpc) if refusal is None else None
        return Admission(refusal, fault, self._keys.access(headers))

    def pass_through(
        self,
        rpc: str,
        admission: Admission,
        call: Callable[[Any, Any], Any],
        message: Any,
        caller: Caller,
    ) -> Any:
        """Record a call that was read whole, and answer it.

        Raises:
            RefusalError: it ends in a status.
        """
        refusal, fault, access = admission
        with self.counted():
            self._requests.add(rpc, message)
            if refusal is not None:
                raise refusal
            if access is None:
                return self._answer(call, rpc, fault, message, caller)
            access.check(rpc, message)
            return access.filtered(rpc, self._answer(call, rpc, fault, message, caller))

    def intercept_service(self, continuation: Callable[[Any], Any], details: Any) -> Any:
        """Put the gate around a call's handler; only its headers are here yet."""
        handler = continuation(details)
        if handler is None:
            return None
        rpc = rpc_of_path(details.method)
        admission = self.admit(rpc, dict(details.invocation_metadata))
        if isinstance(admission.fault, Cut):
            return self._cut_inside(handler, admission.fault)

        def handle(message: Any, context: Any) -> Any:
            caller = _GrpcCaller(context, self._proxy)
            try:
                return self.pass_through(rpc, admission, handler.unary_unary, message, caller)
            except RefusalError as error:
                return _abort(context, error)

        return grpc.unary_unary_rpc_method_handler(
            handle, handler.request_deserializer, handler.response_serializer
        )

    def _answer(
        self, call: Callable[[Any, Any], Any], rpc: str, fault: Any, message: Any, caller: Caller
    ) -> Any:
        """Do what the fault says around the call itself."""
        if isinstance(fault, Refused):
            raise refusal_in_trouble(fault.code, fault.message, fault.retry_after_s)
        if isinstance(fault, Slow):
            self._wait(fault, caller)
        if isinstance(fault, Held):
            fault.released.wait()
        answer = self._apply(call, rpc, message)
        if isinstance(fault, LostAnswer):
            if fault.code is not None:
                raise refusal_in_trouble(fault.code, Mistake.ANSWER_LOST.message())
            caller.cut()
            raise Mistake.ANSWER_LOST.refusal()
        return answer

    def _apply(self, call: Callable[[Any, Any], Any], rpc: str, message: Any) -> Any:
        """Call under the lock; what local mode refuses becomes a row of the table."""
        with self._lock:
            if self._stopping:
                raise Mistake.STOPPED.refusal()
            try:
                return call(message, None)
            except RefusalError:
                raise
            except NotImplementedError:
                raise Mistake.NOT_SERVED.refusal(rpc=rpc) from None
            except KeyError as error:  # local mode's word for points that are not there
                raise Mistake.NO_POINT.refusal(id=error.args[0]) from error
            except ValueError as error:
                text = _VECTOR_SUFFIX.sub("", str(error)).removeprefix("Wrong input: ")
                raise Mistake.BAD_INPUT.refusal(description=text) from error
            except Exception as error:
                raise Mistake.INTERNAL.refusal(description=repr(error)) from error

    def _wait(self, fault: Slow, caller: Caller) -> None:
        """Wait without the lock until the time is over, the call is gone, or the server stops."""
        over = threading.Event()
        with self._state:
            self._waits.add(over)
            if self._stopping or not caller.add_callback(over.set):
                over.set()
        over.wait(fault.seconds)
        with self._state:
            self._waits.discard(over)
        if fault.drop_if_cancelled and not caller.is_active():
            raise Mistake.CANCELLED.refusal()

    def _cut_inside(self, handler: Any, fault: Cut) -> Any:
        """A handler that starts when the headers are here, and cuts before the message is applied.

        On the wire a call with one message is a stream of one; taken as a stream, the handler runs
        before the body has arrived.
        """

        def handle(messages: Iterator[Any], context: Any) -> Any:
            with self.counted():
                caller = _GrpcCaller(context, self._proxy)
                caller.cut_after(fault.after_bytes)
                with suppress(grpc.RpcError):  # the body never came
                    next(messages, None)
                caller.cut()
                return _abort(context, Mistake.CUT.refusal())

        return grpc.stream_unary_rpc_method_handler(
            handle, handler.request_deserializer, handler.response_serializer
        )

    @contextmanager
    def counted(self) -> Iterator[None]:
        """Count a call while it is handled."""
        with self._state:
            self._running += 1
        try:
            yield
        finally:
            with self._state:
                self._running -= 1
                self._state.notify_all()


def _abort(context: Any, error: RefusalError) -> NoReturn:
    """End a call with a status."""
    context.set_trailing_metadata(error.trailing)
    context.abort(error.code, error.message)
    raise error  # abort has raised; this tells the type checker so
