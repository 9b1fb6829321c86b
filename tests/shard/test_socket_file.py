"""A socket's path has one owner, in a folder that no other user may enter."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import pytest

from santacoder_shard.socket_file import AddressTaken, SocketFile, UnsafeFolder


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "run" / "rank-0.sock"


@pytest.mark.fault("X8")
def test_a_second_owner_is_refused_with_the_firsts_process_id_until_it_lets_go(path: Path) -> None:
    first = SocketFile(path)
    with pytest.raises(AddressTaken, match=f"process with id {os.getpid()}; got unix:"):
        SocketFile(path)
    first.release(with_folder=False)
    SocketFile(path).release(with_folder=False)


def test_the_folder_is_made_for_its_owner_alone_and_the_socket_too(path: Path) -> None:
    claimed = SocketFile(path)
    path.touch(mode=0o666)
    claimed.restrict()
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    claimed.release(with_folder=False)


@pytest.mark.fault("G7")
def test_a_folder_open_to_others_is_refused(path: Path) -> None:
    path.parent.mkdir()
    path.parent.chmod(0o750)
    with pytest.raises(UnsafeFolder, match="got mode 0750; allowed 0700"):
        SocketFile(path)


def test_a_socket_left_by_a_killed_owner_is_replaced(path: Path) -> None:
    path.parent.mkdir(mode=0o700)
    path.touch()
    path.with_name("rank-0.sock.lock").write_text("99999")
    claimed = SocketFile(path)
    assert not path.exists()
    claimed.release(with_folder=False)


def test_release_leaves_nothing_and_the_folder_only_while_others_use_it(path: Path) -> None:
    first = SocketFile(path)
    second = SocketFile(path.with_name("rank-1.sock"))
    first.release(with_folder=True)
    assert [item.name for item in path.parent.iterdir()] == ["rank-1.sock.lock"]
    second.release(with_folder=True)
    assert not path.parent.exists()
