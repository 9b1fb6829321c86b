"""Options: what is accepted, and that everything else is one line with exit code 2."""

from __future__ import annotations

import pytest

from santacoder_shard import launch
from santacoder_shard.arguments import OneLineParser, is_loopback
from santacoder_shard.config import (
    add_engine_arguments,
    engine_arguments,
    engine_options,
    parse_config,
)

GOOD = ("--rank=0", "--model=m", "--listen=unix:/run/x.sock")


def test_a_rank_needs_only_its_number_its_model_and_its_address() -> None:
    config = parse_config(GOOD)
    assert (config.rank, config.tensor_parallel_size, config.epoch) == (0, 1, 1)
    assert (config.model, config.listen, config.revision) == ("m", "unix:/run/x.sock", None)
    assert not config.exit_with_stdin
    assert config.engine.fim and config.engine.device == "auto"


@pytest.mark.fault("G1")
@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ((), "the following arguments are required: "),
        ((*GOOD, "--rank=-1"), "--rank: out of range; got -1; allowed 0..63"),
        ((*GOOD, "--rank=1"), "--rank: out of range; got 1; allowed 0..0"),
        ((*GOOD, "--tp=zwei"), "--tp: not a whole number; got zwei; allowed 1..64"),
        ((*GOOD, "--tp=2"), "--rendezvous: missing"),
        ((*GOOD, "--epoch=0"), "--epoch: out of range; got 0"),
        ((*GOOD, "--max-running=1025"), "--max-running: out of range; got 1025; allowed 1..1024"),
        ((*GOOD, "--kv-cache-tokens=0"), "--kv-cache-tokens: out of range; got 0"),
        ((*GOOD, "--kv-cache-tokens=9", "--kv-cache-bytes=9"), "--kv-cache-bytes: not allowed"),
        ((*GOOD, "--device=tpu"), "--device: invalid choice: 'tpu'"),
        ((*GOOD, "--listen=0.0.0.0:9"), "--listen: open to other machines; got 0.0.0.0"),
        ((*GOOD, "--listen=9"), "--listen: not an address; got 9"),
        ((*GOOD, "--listen=127.0.0.1:65536"), "--listen: not an address"),
        ((*GOOD, f"--listen=unix:/{'x' * 107}"), "--listen: socket path too long"),
        ((*GOOD, "--max-run=3"), "unrecognized arguments: --max-run=3"),
    ],
)
def test_a_wrong_option_is_one_line_that_names_it_and_exit_code_2(
    arguments: tuple[str, ...], line: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_config(arguments)
    assert caught.value.code == 2
    error, hint, *rest = capsys.readouterr().err.splitlines()
    assert error.startswith(f"error: {line}")
    assert hint.startswith("hint: ") and not rest


def test_engine_options_reach_the_ranks_as_they_were_given() -> None:
    parser = OneLineParser("test", "")
    add_engine_arguments(parser)
    given = ["--dtype=float32", "--kv-cache-tokens=4096", "--max-running=3", "--fim=off"]
    options = engine_options(parser.parse_args(given))
    config = parse_config([*GOOD, *engine_arguments(options)])
    assert config.engine == options
    assert (options.kv_cache_tokens, options.max_running, options.fim) == (4096, 3, False)


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("10.0.0.1", False),
        ("example.org", False),
    ],
)
def test_only_this_machines_own_addresses_are_loopback(host: str, expected: bool) -> None:
    assert is_loopback(host) is expected


@pytest.mark.fault("G3")
def test_serve_refuses_other_machines_unless_told_otherwise(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit) as caught:
        launch.parse_config(["--host=0.0.0.0"])
    assert caught.value.code == 2
    assert "--host: open to other machines" in capsys.readouterr().err
    config = launch.parse_config(["--host=0.0.0.0", "--insecure-allow-remote"])
    assert "--host=0.0.0.0" in config.router_arguments
