"""Lets the router call and nobody else who has a certificate of the same CA, such as a client."""

from __future__ import annotations

from typing import Any

import grpc

from santacoder_shard.certificates import ROUTER_NAME

Context = grpc.aio.ServicerContext[Any, Any]


async def admit_router(context: Context) -> None:
    """Ends the RPC with PERMISSION_DENIED unless the caller's certificate is the router's."""
    names = [
        name.decode(errors="replace")
        for name in context.auth_context().get("x509_subject_alternative_name", ())
    ]
    if ROUTER_NAME not in names:
        shown = ascii(",".join(names))[1:-1][:64] or "no name"
        await context.abort(
            grpc.StatusCode.PERMISSION_DENIED,
            f"certificate: not the router's; got {shown}; allowed {ROUTER_NAME}",
        )
