"""The same request over REST or gRPC, with as little work a call as Python allows."""

from __future__ import annotations

import asyncio
import ssl
from http import HTTPStatus
from typing import Any, final

from tf_serving.client_errors import code_of_http
from tf_serving.client_transport import Connection
from tf_serving.load_test.open_loop import OK, Caller

CALL_SECONDS = 30.0


@final
class RestCaller(Caller):
    """HTTP/1.1 with connections that are kept.

    Args:
        connection: Where the server is.
        path: Such as ``/v1/models/adult:predict``.
        body: The request.
    """

    def __init__(self, connection: Connection, *, path: str, body: bytes) -> None:
        self._connection = connection
        headers = {
            "Host": connection.place,
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
            **connection.headers,
        }
        lines = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        self._request = f"POST {path} HTTP/1.1\r\n{lines}\r\n".encode() + body
        self._streams: dict[int, tuple[asyncio.StreamReader, asyncio.StreamWriter]] = {}

    async def open(self, num_connections: int) -> None:
        """Connect a first time; further connections are opened when they are used."""
        del num_connections
        await self._stream(0)

    async def call(self, connection: int) -> str:
        """Send the request; return the code of the answer."""
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await self._call(connection)
        except TimeoutError:
            self._drop(connection)
            return "DEADLINE_EXCEEDED"
        except (OSError, asyncio.IncompleteReadError, ValueError):
            self._drop(connection)
            return "DISCONNECTED"
        except asyncio.CancelledError:
            self._drop(connection)
            raise

    async def close(self) -> None:
        """Disconnect."""
        for connection in list(self._streams):
            self._drop(connection)
        await asyncio.sleep(0)

    async def _call(self, connection: int) -> str:
        reader, writer = await self._stream(connection)
        writer.write(self._request)
        head = await reader.readuntil(b"\r\n\r\n")
        status = int(head[9:12])
        lower = head.lower()
        place = lower.find(b"\r\ncontent-length:")
        if place < 0:
            raise ValueError("an answer without a length")
        await reader.readexactly(int(lower[place + 17 : lower.index(b"\r\n", place + 2)]))
        if b"\r\nconnection: close" in lower:
            self._drop(connection)
        return OK if status == HTTPStatus.OK else code_of_http(status).value

    async def _stream(self, number: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if number not in self._streams:
            there = self._connection
            context = ssl.create_default_context(cafile=there.ca_certificate) if there.secure else None
            self._streams[number] = await asyncio.open_connection(there.host, there.port, ssl=context, limit=1 << 24)
        return self._streams[number]

    def _drop(self, number: int) -> None:
        stream = self._streams.pop(number, None)
        if stream is not None:
            stream[1].close()


@final
class GrpcCaller(Caller):
    """gRPC, with the request as bytes that are made once; a channel carries many calls.

    Args:
        connection: Where the server is.
        body: A serialized PredictRequest.
    """

    _METHOD = "/tensorflow.serving.PredictionService/Predict"
    _CALLS_A_CHANNEL = 64

    def __init__(self, connection: Connection, *, body: bytes) -> None:
        self._connection, self._body = connection, body
        self._metadata = tuple((name.lower(), value) for name, value in connection.headers.items())
        self._channels: list[Any] = []
        self._calls: list[Any] = []

    async def open(self, num_connections: int) -> None:
        """Open channels, each for some of the calls in flight."""
        import grpc

        for number in range(max(1, num_connections // self._CALLS_A_CHANNEL)):
            # Without an option of its own a channel would share the others' connection.
            options = [("grpc.max_receive_message_length", -1), ("tamiz.channel", number)]
            if self._connection.secure:
                file = self._connection.ca_certificate
                credentials = grpc.ssl_channel_credentials(file.read_bytes() if file else None)
                channel = grpc.aio.secure_channel(self._connection.place, credentials, options=options)
            else:
                channel = grpc.aio.insecure_channel(self._connection.place, options=options)
            self._channels.append(channel)
            self._calls.append(channel.unary_unary(self._METHOD))
        try:
            async with asyncio.timeout(10):
                await self._channels[0].channel_ready()
        except TimeoutError as error:
            raise ConnectionError(f"{self._connection.place} speaks no gRPC") from error

    async def call(self, connection: int) -> str:
        """Send the request; return the code of the answer."""
        import grpc

        call = self._calls[connection % len(self._calls)]
        try:
            await call(self._body, timeout=CALL_SECONDS, metadata=self._metadata)
        except grpc.aio.AioRpcError as error:
            return str(error.code().name)
        return OK

    async def close(self) -> None:
        """Disconnect."""
        for channel in self._channels:
            await channel.close()
        self._channels.clear()
        self._calls.clear()
