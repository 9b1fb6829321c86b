"""What SECURITY.md says of options, rights and reasons is so, and its commands make good tokens."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from santacoder_client._security import read_token
from santacoder_client.cli import main as client_main
from santacoder_router import access, config
from santacoder_router.caller_limits import BOUNDS, KNOWN
from santacoder_router.core.plan import Priority
from santacoder_router.reasons import Reason
from santacoder_router.tokens import Right, read_tokens
from santacoder_shard import config as shard_config
from santacoder_shard import launch

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "SECURITY.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", PAGE, re.M | re.S)


def test_its_commands_make_a_token_that_the_router_knows(tmp_path: Path) -> None:
    for script in blocks("bash"):
        subprocess.run(["bash", "-euc", script], cwd=tmp_path, check=True, timeout=60)
    secret = (tmp_path / "alice.token").read_bytes()
    token = read_tokens(tmp_path / "tokens").find(secret)
    assert token is not None and len(secret) == 64
    assert token.rights == {Right.COMPLETE, Right.TOKENIZE, Right.INFO}
    assert token.caller == "alice"
    assert read_token("--token-file", tmp_path / "alice.token")


def test_its_example_is_a_token_file(tmp_path: Path) -> None:
    [example] = [block for block in blocks("text") if block.startswith("#")]
    path = tmp_path / "tokens"
    path.write_text(example)
    path.chmod(0o600)
    read_tokens(path)


def test_its_table_of_rights_is_the_router_s() -> None:
    [table] = re.findall(r"^\| right \|.*\n\|[-|]+\n((?:\|.*\n)+)", PAGE, re.M)
    rows = dict(re.findall(r"^\| `(\w+)` \| (.+) \|$", table, re.M))
    assert rows.keys() == {right.value for right in Right}
    for method, right in access.RIGHTS.items():
        name = method.rpartition("/")[2]
        assert f"`{name}`" in rows[right] or right is Right.REFLECT


def test_its_table_of_limits_is_the_router_s() -> None:
    for name, (kind, _, most, _) in BOUNDS.items():
        shown = f"{kind(getattr(KNOWN, name)):,}"
        [row] = re.findall(rf"^\| .*`{name.replace('_', '-')}`.*\|$", PAGE, re.M)
        assert shown.removesuffix(".0") in row and f"{most:,.0f}" in row, row
    assert "| `priority` | normal | high | PRIORITY_DENIED |" in PAGE
    assert KNOWN.priority is Priority.NORMAL


def test_its_reasons_and_options_exist(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = set(re.findall(r"\b([A-Z]+_[A-Z_]+)\b", PAGE))
    reasons -= {"TRITON_CACHE_DIR", "PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "SANTACODER_TOKEN"}
    assert reasons == {
        *("TOKEN_MISSING", "TOKEN_INVALID", "TOKEN_EXPIRED", "METHOD_NOT_ALLOWED", "AUTH_RATE"),
        *("CALLER_QUEUE_FULL", "SESSION_LIMIT", "PRIORITY_DENIED"),
        *("CLIENT_STALLED", "MEMORY_PRESSURE"),
    }
    assert reasons <= {reason.value for reason in Reason}
    for show in (
        config.parse_arguments,
        shard_config.parse_config,
        launch.parse_config,
        client_main,
    ):
        with pytest.raises(SystemExit):
            show(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    # openssl's and cut's own are written with one dash.
    assert set(re.findall(r"--[a-z][a-z-]*", PAGE)) <= known


def test_every_file_it_links_to_is_there() -> None:
    links = re.findall(r"\]\((?!https?:)([^)#]+)\)", PAGE)
    assert links and all((ROOT / link).exists() for link in links)
