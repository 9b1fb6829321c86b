"""One rank of a SantaCoder model: plans of integers in, sampled ids out. Knows no text."""

import os

# gRPC reads this when it is first imported. Its own log has a line for every stranger whose
# handshake fails; what concerns us, it also tells us.
os.environ.setdefault("GRPC_VERBOSITY", "NONE")
