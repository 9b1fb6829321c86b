"""Keeps gRPC's own log off a person's terminal: what it would say, an exception says as well.

To be imported before gRPC, which reads its setting once. Whoever sets GRPC_VERBOSITY has it.
"""

from __future__ import annotations

import os

if "GRPC_VERBOSITY" not in os.environ:
    os.environ["GRPC_VERBOSITY"] = "NONE"
    try:
        import grpc as grpc
    finally:
        del os.environ["GRPC_VERBOSITY"]
