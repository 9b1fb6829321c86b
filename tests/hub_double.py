"""A hub on loopback: one repository's folders by commit, branch and tag, as a hub serves them.

Knows the hub's HTTP and refuses to know who asks.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote

from checkpoints import make_checkpoint

REPOSITORY = "example/santacoder"
MAIN_COMMIT = "1" * 40
OTHER_COMMIT = "2" * 40


@dataclass
class HubDouble:
    """Serves one repository's folders by commit, the way the hub does, and logs what was asked."""

    folders: dict[str, Path]
    revisions: dict[str, str]
    requests: list[str] = field(default_factory=list)

    def commit_of(self, revision: str) -> str | None:
        return revision if revision in self.folders else self.revisions.get(revision)

    @contextmanager
    def serving(self) -> Iterator[str]:
        double = self

        class Handler(_HubHandler):
            hub = double

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, args=(0.02,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            server.server_close()
            thread.join()


class _HubHandler(BaseHTTPRequestHandler):
    hub: HubDouble

    def do_HEAD(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        path = unquote(self.path.partition("?")[0])
        self.hub.requests.append(f"{self.command} {path}")
        api, files = f"/api/models/{REPOSITORY}", f"/{REPOSITORY}/resolve/"
        if path.startswith(f"{api}/revision/"):
            self._answer_info(path.removeprefix(f"{api}/revision/"))
        elif path.startswith(f"{api}/tree/"):
            self._answer_tree(path.removeprefix(f"{api}/tree/"))
        elif path == api:
            self._answer_info("main")
        elif path.startswith(files):
            revision, _, name = path.removeprefix(files).partition("/")
            self._answer_file(revision, name)
        else:
            self._refuse("RepoNotFound")

    def _answer_info(self, revision: str) -> None:
        commit = self.hub.commit_of(revision)
        if commit is None:
            return self._refuse("RevisionNotFound")
        names = sorted(item.name for item in self.hub.folders[commit].iterdir())
        info = {
            "id": REPOSITORY,
            "sha": commit,
            "private": False,
            "tags": [],
            "downloads": 0,
            "likes": 0,
            "siblings": [{"rfilename": name} for name in names],
        }
        self._send(json.dumps(info).encode(), {"Content-Type": "application/json"})

    def _answer_tree(self, revision: str) -> None:
        commit = self.hub.commit_of(revision)
        if commit is None:
            return self._refuse("RevisionNotFound")
        entries = [
            {
                "type": "file",
                "path": item.name,
                "size": item.stat().st_size,
                "oid": hashlib.sha1(item.read_bytes()).hexdigest(),
            }
            for item in sorted(self.hub.folders[commit].iterdir())
        ]
        self._send(json.dumps(entries).encode(), {"Content-Type": "application/json"})

    def _answer_file(self, revision: str, name: str) -> None:
        commit = self.hub.commit_of(revision)
        path = self.hub.folders[commit] / name if commit else None
        if path is None or not path.is_file():
            return self._refuse("EntryNotFound")
        data = path.read_bytes()
        headers = {
            "ETag": f'"{hashlib.sha1(data).hexdigest()}"',
            "X-Repo-Commit": commit or "",
            "Content-Type": "application/octet-stream",
        }
        self._send(data, headers)

    def _refuse(self, code: str) -> None:
        self._send(b"{}", {"X-Error-Code": code, "X-Error-Message": code}, status=404)

    def _send(self, data: bytes, headers: dict[str, str], status: int = 200) -> None:
        self.send_response(status)
        for key, value in (headers | {"Content-Length": str(len(data))}).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, format: str, *args: object) -> None:
        """The log is `requests`."""


def two_commits(folder: Path) -> HubDouble:
    """Two commits: `main` and tag v1 at one, the branch no-fim at the other, in another format."""
    main = make_checkpoint(folder / "main", "b", seed=1)
    make_checkpoint(main, "b", seed=1, file_format="bin")
    (main / "modeling.py").write_text("raise RuntimeError('remote code must not be fetched')")
    other = make_checkpoint(folder / "other", "a", seed=2, shards=2, file_format="bin")
    (other / "training_args.bin").write_bytes(b"not a weight file")
    return HubDouble(
        folders={MAIN_COMMIT: main, OTHER_COMMIT: other},
        revisions={"main": MAIN_COMMIT, "v1": MAIN_COMMIT, "no-fim": OTHER_COMMIT},
    )


def hub_environment(endpoint: str, cache: Path, *, offline: bool = False) -> dict[str, str]:
    """The environment of a process that knows only this hub and this cache."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
    return environment | {
        "HF_ENDPOINT": endpoint,
        "HF_HOME": str(cache),
        "HF_HUB_OFFLINE": "1" if offline else "0",
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
