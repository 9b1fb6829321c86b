"""One rank's configuration: from arguments to a frozen object, checked in one place.

Knows neither torch nor the model, so that a wrong option is refused in a moment.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from santacoder_shard.arguments import (
    OneLineParser,
    absolute_path,
    is_loopback,
    listen_address,
    whole_number,
)
from santacoder_shard.certificate_files import FLAGS, CertificateFiles
from santacoder_shard.environment import strange_variables

MAX_PARALLEL_SIZE = 64
MAX_RUNNING_LIMIT = 1024
DEFAULT_MAX_RUNNING = {"cpu": 8, "cuda": 256}
DEFAULT_TOKENS_PER_STEP = {"cpu": 512, "cuda": 2048}
DEVICES = ("auto", "cpu", "cuda")
DTYPES = ("auto", "float32", "float16", "bfloat16")
LOG_LEVELS = ("debug", "info", "warning", "error")


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """What santacoder-serve hands on to every rank as it got it."""

    device: str
    """auto, cpu or cuda."""
    dtype: str
    """auto, float32, float16 or bfloat16."""
    kv_cache_bytes: int | None
    """Room for K and V on one rank; at most one of this and the next."""
    kv_cache_tokens: int | None
    """The same in tokens."""
    max_running: int | None
    """Sequences at once; by default 8 on a CPU and 256 on a GPU."""
    tokens_per_step: int | None
    """Most tokens a plan may run in a step; by default 512 on a CPU and 2048 on a GPU."""
    thread_count: int | None
    """Threads of one rank; by default the cores divided by the ranks."""
    fim: bool
    """Whether fill-in-the-middle may be served, if the checkpoint can."""
    log_level: str
    """Least level logged: debug, info, warning or error."""


@dataclass(frozen=True, slots=True)
class ShardConfig:
    """Everything one rank is told."""

    rank: int
    tensor_parallel_size: int
    model: str
    """A folder or a hub id."""
    revision: str | None
    """Branch, tag or commit of a hub id."""
    model_name: str | None
    """Given with a folder that has been resolved already: what the user called it."""
    model_commit: str
    """Given with a folder that has been resolved already: its commit, empty if it has none."""
    verified_as: str
    """Given with a folder whose files have been checked already: what they were known by then."""
    listen: str
    """unix:PATH or HOST:PORT."""
    rendezvous: Path | None
    """A new file through which the ranks of one life find each other; needed above one rank."""
    epoch: int
    """Life of the group."""
    tls: CertificateFiles | None
    """For HOST:PORT: encrypted, and for the router's certificate alone."""
    stacks: Path | None
    """Where the stacks of all threads go when the rank dies or is asked for them."""
    exit_with_stdin: bool
    """Leave when standard input ends: it is a pipe that the starter holds while it lives."""
    engine: EngineOptions


def parse_config(arguments: Sequence[str]) -> ShardConfig:
    """Read a rank's arguments; a wrong one ends the process with one line and exit code 2."""
    parser = OneLineParser("santacoder-shard", "Serve one rank of a SantaCoder model.")
    _add_rank_arguments(parser)
    add_model_arguments(parser, model_required=True)
    add_engine_arguments(parser)
    options = parser.parse_args(arguments)
    check_environment(parser, options)
    if options.rank >= options.tp:
        parser.error(f"--rank: out of range; got {options.rank}; allowed 0..{options.tp - 1}")
    if options.tp > 1 and options.rendezvous is None:
        parser.error("--rendezvous: missing; above one rank it names a new file that all share")
    return ShardConfig(
        rank=options.rank,
        tensor_parallel_size=options.tp,
        model=options.model,
        revision=options.revision,
        model_name=options.model_name,
        model_commit=options.model_commit,
        verified_as=options.verified_as,
        listen=options.listen,
        rendezvous=options.rendezvous,
        epoch=options.epoch,
        tls=_tls(parser, options),
        stacks=options.stacks,
        exit_with_stdin=options.exit_with_stdin,
        engine=engine_options(options),
    )


def _add_rank_arguments(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("--rank", type=whole_number(0, MAX_PARALLEL_SIZE - 1), required=True, help="from 0")
    add("--listen", type=listen_address, required=True, help="unix:PATH or HOST:PORT")
    add("--rendezvous", type=absolute_path, metavar="FILE", help="new file shared by the ranks")
    add("--epoch", type=whole_number(1, 2**63), default=1, help="life of the group (default 1)")
    add("--model-name", help="what --model, a resolved folder, was called")
    add("--model-commit", default="", help="commit of --model, a resolved folder")
    add("--verified-as", default="", help="what --model's checked files are known by")
    add("--tls-cert", type=Path, metavar="FILE", help="of shard-RANK.santacoder.internal, PEM")
    add("--tls-key", type=Path, metavar="FILE", help="its key, PEM, mode 0600")
    add("--tls-client-ca", type=Path, metavar="FILE", help="CA of router.santacoder.internal")
    add("--stacks", type=absolute_path, metavar="FILE", help="where stacks go when the rank dies")
    add("--exit-with-stdin", action="store_true", help="leave when standard input ends")


def _tls(parser: OneLineParser, options: argparse.Namespace) -> CertificateFiles | None:
    """Its files; without them plans, which are prompts, may not leave the machine."""
    certificate, key, client_ca = options.tls_cert, options.tls_key, options.tls_client_ca
    is_socket = options.listen.startswith("unix:")
    if certificate and key and client_ca:
        if is_socket:
            parser.error(f"--tls-cert: for HOST:PORT; got --listen {options.listen}")
        return CertificateFiles(certificate, key, client_ca)
    if certificate or key or client_ca:
        parser.error(f"--tls-cert: incomplete; allowed {', '.join(FLAGS)} together or none")
    host = options.listen.rpartition(":")[0]
    if not is_socket and not is_loopback(host.strip("[]")):
        parser.error(
            f"--listen: open to other machines; got {host}; allowed 127.0.0.1, ::1, localhost,"
            f" others with {', '.join(FLAGS)}"
        )
    return None


def check_environment(parser: OneLineParser, options: argparse.Namespace) -> None:
    """With --strict-env a variable that looks like ours and is none is a wrong option."""
    if options.strict_env and (strange := strange_variables(os.environ)):
        parser.error(strange[0])


def add_model_arguments(parser: argparse.ArgumentParser, model_required: bool) -> None:
    """--model, --revision and --tp."""
    add = parser.add_argument
    add("--model", required=model_required, metavar="PATH_OR_ID", help="folder or hub id")
    add("--revision", help="branch, tag or commit of a hub id")
    add("--tp", type=whole_number(1, MAX_PARALLEL_SIZE), default=1, help="ranks (default 1)")


def add_engine_arguments(parser: argparse.ArgumentParser) -> None:
    """The options of EngineOptions."""
    add = parser.add_argument
    add("--device", choices=DEVICES, default="auto", help="auto is a GPU that can be used")
    add("--dtype", choices=DTYPES, default="auto", help="auto is float32 on a CPU, half on a GPU")
    cache = parser.add_mutually_exclusive_group()
    cache.add_argument("--kv-cache-bytes", type=whole_number(1, 2**44), help="on one rank")
    cache.add_argument("--kv-cache-tokens", type=whole_number(1, 2**32), help="the same, in tokens")
    running = whole_number(1, MAX_RUNNING_LIMIT)
    add("--max-running", type=running, help="sequences at once (default 8 on CPU, 256 on GPU)")
    tokens = whole_number(16, 65536)
    add("--tokens-per-step", type=tokens, help="most at once (default 512 on CPU, 2048 on GPU)")
    add("--threads", type=whole_number(1, 1024), help="of one rank (default cores / tp)")
    add("--fim", choices=("on", "off"), default="on", help="fill-in-the-middle (default on)")
    add("--log-level", choices=LOG_LEVELS, default="info", help="least level logged (default info)")
    add("--strict-env", action="store_true", help="refuse unknown SANTACODER_ variables (warn)")


def engine_options(options: argparse.Namespace) -> EngineOptions:
    """What `add_engine_arguments` has read."""
    return EngineOptions(
        device=options.device,
        dtype=options.dtype,
        kv_cache_bytes=options.kv_cache_bytes,
        kv_cache_tokens=options.kv_cache_tokens,
        max_running=options.max_running,
        tokens_per_step=options.tokens_per_step,
        thread_count=options.threads,
        fim=options.fim == "on",
        log_level=options.log_level,
    )


def engine_arguments(options: EngineOptions) -> list[str]:
    """The arguments from which another process reads the same options."""
    given = {
        "--device": options.device,
        "--dtype": options.dtype,
        "--kv-cache-bytes": options.kv_cache_bytes,
        "--kv-cache-tokens": options.kv_cache_tokens,
        "--max-running": options.max_running,
        "--tokens-per-step": options.tokens_per_step,
        "--threads": options.thread_count,
        "--fim": "on" if options.fim else "off",
        "--log-level": options.log_level,
    }
    return [f"{name}={value}" for name, value in given.items() if value is not None]
