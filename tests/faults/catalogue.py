"""Every fault that the service is held against, by id: what it is, and why it cannot be shown here.

C of clients, N of the network, S of shards, R of the router, D of stored models, X of deployment,
G of configuration. A test says `@pytest.mark.fault("S1")` of a fault that it shows; `make faults`
runs all of these and ends with a table in which no fault may be missing.
"""

from __future__ import annotations

from typing import NamedTuple

UNDEFENDED = "not defended against: weights are not looked at again once they are loaded"
ON_GPUS = "needs a GPU: make faults-gpu"


class Fault(NamedTuple):
    """A fault in one line; `excuse` says why no test shows it on a machine like this."""

    what: str
    excuse: str = ""


CLIENT = {
    "C1": Fault("a client is killed in mid-stream"),
    "C2": Fault("a cancel at every point of a request's life"),
    "C3": Fault("10,000 calls that are cancelled as soon as made"),
    "C4": Fault("a client stops reading"),
    "C5": Fault("many clients read slowly"),
    "C6": Fault("connections that say nothing"),
    "C7": Fault("a session that says a byte a second"),
    "C8": Fault("a deadline that has passed, or will while the request waits"),
    "C9": Fault("many clients try again after an outage"),
    "C10": Fault("one request id twice, at once and one after the other"),
    "C11": Fault("one caller floods"),
    "C12": Fault("a client's clock is an hour wrong"),
    "C13": Fault("a client crashes and goes on with what it has"),
}

NETWORK = {
    "N1": Fault("the link from client to router is cut at any byte"),
    "N2": Fault("the link from router to shard is cut at any byte"),
    "N3": Fault("the link from router to shard swallows everything"),
    "N4": Fault("the link from router to shard works one way only"),
    "N5": Fault("the link from router to shard is slow and uneven"),
    "N6": Fault("a client's link carries 1 KiB/s"),
    "N7": Fault("segments of one byte"),
    "N8": Fault("a shard's frames come twice or out of order"),
    "N9": Fault("a link that comes and goes"),
    "N10": Fault("a connection is too old amid a stream"),
    "N11": Fault("a client pings too often"),
    "N12": Fault("a link is lost while nothing is said"),
    "N13": Fault("a stranger answers at a shard's address"),
    "N14": Fault("the link between two ranks is cut"),
}

SHARD = {
    "S1": Fault("a rank is killed, in every phase of a step"),
    "S2": Fault("a rank is stopped"),
    "S3": Fault("a rank crashes in native code"),
    "S4": Fault("an exception in a step, of one sequence or of all"),
    "S5": Fault("the kernel kills a rank for its memory"),
    "S6": Fault("the device has no memory left in a step"),
    "S7": Fault("logits of one row are not finite"),
    "S8": Fault("logits of all rows are not finite"),
    "S9": Fault("a weight changes on one rank", UNDEFENDED),
    "S10": Fault("a rank does not come to a collective"),
    "S11": Fault("ranks carry out different commands"),
    "S12": Fault("a rank is five times slower"),
    "S13": Fault("a rank's event loop stands still"),
    "S14": Fault("a rank's heartbeat ends while it works"),
    "S15": Fault("a result twice, of another step, or of a sequence that has ended"),
    "S16": Fault("a shard answers with an id that does not exist"),
    "S17": Fault("the group dies at every start"),
    "S18": Fault("one request kills the group whenever it runs"),
    "S19": Fault("shards whose router has died"),
    "S20": Fault("a hundred restarts leave nothing behind"),
    "S21": Fault("an illegal access on the device", ON_GPUS),
    "S22": Fault("a graph cannot be captured or replayed", ON_GPUS),
    "S23": Fault("a rank dies in a collective of GPUs", ON_GPUS),
    "S24": Fault("a rank has other weights or another version"),
}

ROUTER = {
    "R1": Fault("the router is killed in mid-stream"),
    "R2": Fault("twice to ten times the load that it can carry"),
    "R3": Fault("the queue is full"),
    "R4": Fault("a request waits too long"),
    "R5": Fault("the router's event loop stands still"),
    "R6": Fault("tokenizing hangs or takes too long"),
    "R7": Fault("an exception in the scheduler"),
    "R8": Fault("no file descriptors are left"),
    "R9": Fault("memory runs short"),
    "R10": Fault("a gateway dies or is slow", "there is no gateway"),
    "R11": Fault("a reader of the metrics hangs, or reads all the time"),
    "R12": Fault("nobody reads the log, or its disk is full"),
    "R13": Fault("the wall clock jumps by an hour"),
    "R14": Fault("two prefixes have one hash"),
    "R15": Fault("long sequences use up the KV cache"),
}

STORAGE = {
    "D1": Fault("a weight file is cut off"),
    "D2": Fault("a bit of a weight file is flipped"),
    "D3": Fault("a byte of a weight file's header is wrong"),
    "D4": Fault("a tensor is missing, or there is one too many"),
    "D5": Fault("a tensor has another type or shape"),
    "D6": Fault("the index of the weight files is wrong"),
    "D7": Fault("a key stands twice in a header"),
    "D8": Fault("a header is enormous"),
    "D9": Fault("a weight is not finite"),
    "D10": Fault("a pickle in place of weights"),
    "D11": Fault("a weight file changes while it is served"),
    "D12": Fault("the disk is full"),
    "D13": Fault("the disk fails or is slow"),
    "D14": Fault("a file may not be read, or is none"),
    "D15": Fault("config.json is wrong"),
    "D16": Fault("the tokenizer is wrong"),
    "D17": Fault("two ranks see different folders"),
}

DEPLOYMENT = {
    "X1": Fault("SIGTERM amid streams"),
    "X2": Fault("a second signal while it drains"),
    "X3": Fault("SIGTERM while it starts"),
    "X4": Fault("routers are replaced one after the other under load"),
    "X5": Fault("the group is replaced under load"),
    "X6": Fault("router and shards of different versions"),
    "X7": Fault("SDK and router of different versions"),
    "X8": Fault("a second service at the same place"),
    "X9": Fault("a file that is read again is wrong"),
    "X10": Fault("a certificate ends, or is replaced while it serves"),
    "X11": Fault("a hundred starts and stops"),
    "X12": Fault("gRPC and protobuf of other versions"),
}

CONFIGURATION = {
    "G1": Fault("an option that does not exist, or of the wrong type"),
    "G2": Fault("options that contradict each other or the model"),
    "G3": Fault("another address than loopback, without protection"),
    "G4": Fault("a token file that is missing, open to others or weak"),
    "G5": Fault("an environment variable misspelt"),
    "G6": Fault("a device that is not there"),
    "G7": Fault("a port, a path or a folder that cannot be used"),
    "G8": Fault("limits of zero and enormous ones"),
    "G9": Fault("fault points armed outside of tests"),
}

FAULTS: dict[str, Fault] = CLIENT | NETWORK | SHARD | ROUTER | STORAGE | DEPLOYMENT | CONFIGURATION
