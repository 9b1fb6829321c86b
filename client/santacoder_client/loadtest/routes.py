"""Which sender reaches which target."""

from __future__ import annotations

from santacoder_client.loadtest.driver import Route
from santacoder_client.loadtest.job import Job
from santacoder_client.loadtest.load import Share
from santacoder_client.loadtest.router_sender import RouterSender
from santacoder_client.loadtest.sender import Sender
from santacoder_client.loadtest.session_sender import SessionSender
from santacoder_client.loadtest.shard_target import ShardTarget
from santacoder_client.loadtest.target import Target

STREAMS_PER_CHANNEL = 100
"""What servers commonly allow on one connection."""
OPEN_LOOP_CHANNELS = 4
MOST_CHANNELS = 16


def routes_of(job: Job, share: Share) -> list[Route]:
    """A worker's way to every target."""
    return [Route(target.address, _sender(target, job, share)) for target in job.targets]


def _sender(target: Target, job: Job, share: Share) -> Sender:
    if target.mode == "shard":
        return ShardTarget(target, job.security, job.wishes)
    if job.wishes.api == "session":
        return SessionSender(target, job.security, job.wishes)
    return RouterSender(target, job.security, job.wishes, _channel_count(job, share))


def _channel_count(job: Job, share: Share) -> int:
    if job.channel_count is not None:
        return job.channel_count
    if job.load.concurrency is None:
        return OPEN_LOOP_CHANNELS
    of_target = share.of(job.load.concurrency) / len(job.targets)
    return max(1, min(MOST_CHANNELS, round(of_target / STREAMS_PER_CHANNEL + 0.5)))
