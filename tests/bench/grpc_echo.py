"""The floor of gRPC in Python: a bare grpc.aio server that gives every SignTicket the same answer.

python -m tests.bench.grpc_echo FILE      the file holds the encoded answer
"""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import grpc

from tests.bench.load_grpc import METHOD
from tests.bench.serving import serve_until_stopped


@asynccontextmanager
async def serving(answer: bytes) -> AsyncIterator[int]:
    async def sign_ticket(_request: bytes, _context: grpc.aio.ServicerContext[bytes, bytes]) -> bytes:
        return answer

    _, service, method = METHOD.split("/")
    server = grpc.aio.server()
    handler = grpc.unary_unary_rpc_method_handler(sign_ticket)
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, {method: handler}),))
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        yield port
    finally:
        await server.stop(1)


if __name__ == "__main__":
    serve_until_stopped(lambda: serving(Path(sys.argv[1]).read_bytes()))
