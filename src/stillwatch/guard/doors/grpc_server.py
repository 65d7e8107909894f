"""The gRPC server for Envoy: ext_proc, and the access log's sink beside it, in the event loop of the HTTP service.

One process and one guard for both, so that their counters are the same. Callers send the token as metadata.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from typing import Any

from stillwatch.guard.doors import envoy_messages as pb
from stillwatch.guard.doors.access_log import AccessLog
from stillwatch.guard.doors.check import CheckService
from stillwatch.guard.doors.ext_proc import ExternalProcessor
from stillwatch.guard.doors.serving import TOKEN_HEADER, App, Callers, Message, Receive, Send
from stillwatch.guard.sight import MOST_BODY
from stillwatch.schema.errors import MissingExtraError, UsageError

try:
    import grpc
    import grpc.aio
except ImportError as error:
    raise MissingExtraError("grpcio", "envoy", needed_for="Envoy over gRPC") from error

_OPTIONS = (
    # What Envoy keeps of a body (`guard config envoy`), the read it came over the brim with, and what is around it.
    ("grpc.max_receive_message_length", 4 * MOST_BODY),
    ("grpc.so_reuseport", 0),
)
Handler = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]


class GrpcDoor:
    """Listens at `address` (HOST:PORT or unix:PATH) between `start` and `stop`."""

    def __init__(
        self,
        address: str,
        service: CheckService,
        processor: ExternalProcessor,
        log: AccessLog | None = None,
        token: str | None = None,
    ) -> None:
        self._address, self._service, self._processor, self._log = address, service, processor, log
        self._callers = Callers(token)
        self._server: Any = None

    async def start(self) -> None:
        """UsageError where the address cannot be listened at."""
        self._server = grpc.aio.server(options=_OPTIONS)
        services = {pb.EXT_PROC: {"Process": self._processor.process}}
        if self._log is not None:
            services[pb.ACCESS_LOG] = {"StreamAccessLogs": self._log.stream}
        for service, methods in services.items():
            handlers = {
                name: grpc.stream_stream_rpc_method_handler(self._guarded(method))
                for name, method in methods.items()
            }
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        try:
            self._server.add_insecure_port(self._address)
        except RuntimeError as error:
            raise UsageError(
                f"{self._address} cannot be listened at", hint="is another service there?"
            ) from error
        await self._server.start()

    async def stop(self) -> None:
        """Answers what it has, for a second at most; then what was logged is written."""
        if self._server is not None:
            await self._server.stop(1)
        if self._log is not None:
            self._log.close()

    def _guarded(self, method: Handler) -> Callable[[AsyncIterator[bytes], Any], AsyncIterator[bytes]]:
        async def handle(messages: AsyncIterator[bytes], context: Any) -> AsyncIterator[bytes]:
            given = (
                (n.encode(), v if isinstance(v, bytes) else v.encode())
                for n, v in context.invocation_metadata() or ()
            )
            if not self._callers.may(given):
                self._service.metrics.stranger()
                # As from a service that is away: Envoy goes on without, or refuses, as it was told to.
                name = TOKEN_HEADER.decode()
                await context.abort(grpc.StatusCode.UNAVAILABLE, f"{name} is missing or wrong")
            async for answer in method(messages):
                yield answer

        return handle


class WithGrpc:
    """An ASGI application that has the gRPC server beside it while its server runs (ASGI's lifespan events)."""

    def __init__(self, app: App, door: GrpcDoor) -> None:
        self._app, self._door = app, door

    async def __call__(self, scope: Any, receive: Receive, send: Send) -> None:
        if scope["type"] != "lifespan":
            await self._app(scope, receive, send)
            return

        async def started(message: Message) -> None:
            if message["type"] == "lifespan.startup.complete":
                try:
                    await self._door.start()
                except UsageError as error:
                    message = {"type": "lifespan.startup.failed", "message": str(error)}
            elif message["type"] == "lifespan.shutdown.complete":
                await self._door.stop()
            await send(message)

        await self._app(scope, receive, started)
