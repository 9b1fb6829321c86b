"""The router: text becomes plans here. It knows no tensors and imports no sibling package."""

import os

__version__ = "0.1.0"

# gRPC reads this when it is first imported. Its own log has a line for every stranger whose
# handshake fails; what concerns us, it also tells us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
