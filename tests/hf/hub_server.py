"""A stand-in for the Hugging Face Hub: the few requests that publishing and loading a checkpoint make."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit


@dataclass
class Hub:
    """Repositories by name, each with the files of its one commit; those in `private` need the token ``good``.

    With a status in `refuse` every request fails; `promised` has sizes of files that are sent only in part.
    """

    url: str = ""
    files: dict[str, dict[str, bytes]] = field(default_factory=dict)
    private: set[str] = field(default_factory=set)
    requests: list[str] = field(default_factory=list)
    refuse: int = 0
    promised: dict[str, int] = field(default_factory=dict)

    def commit(self, name: str) -> str:
        content = b"".join(key.encode() + value for key, value in sorted(self.files[name].items()))
        return hashlib.sha1(content).hexdigest()


@contextmanager
def serving() -> Iterator[Hub]:
    """Serve a hub on a port of this machine."""
    hub = Hub()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *_: Any) -> None:
            pass

        def answer(self, status: int, content: bytes = b"{}", **headers: str) -> None:
            self.send_response(status)
            for key, value in {"Content_Length": str(len(content)), **headers}.items():
                self.send_header(key.replace("_", "-"), value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(content)
                # Fewer bytes than announced, as from a broken connection.
                self.close_connection = int(headers.get("Content_Length", 0)) > len(content)

        def allowed(self, name: str) -> bool:
            authorised = self.headers.get("Authorization") == "Bearer good"
            if name in hub.files and (name not in hub.private or authorised):
                return True
            self.answer(401, b'{"error": "Repository not found"}', X_Error_Code="RepoNotFound")
            return False

        def do_GET(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"{self.command} {path}")
            if hub.refuse:
                return self.answer(hub.refuse)
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(/revision/\w+)?", path):
                if not self.allowed(name := match[1]):
                    return None
                siblings = [
                    {"rfilename": file, "size": len(content), "blobId": hashlib.sha1(content).hexdigest()}
                    for file, content in hub.files[name].items()
                ]
                about = {"id": name, "sha": hub.commit(name), "siblings": siblings, "private": name in hub.private}
                return self.answer(200, json.dumps(about).encode())
            if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/(\w+)/(.+)", path):
                if not self.allowed(name := match[1]):
                    return None
                if match[3] not in hub.files[name]:
                    return self.answer(404, X_Error_Code="EntryNotFound")
                content = hub.files[name][match[3]]
                tag = f'"{hashlib.sha1(content).hexdigest()}"'
                length = str(hub.promised.get(match[3], len(content)))
                return self.answer(200, content, ETag=tag, X_Repo_Commit=hub.commit(name), Content_Length=length)
            return self.answer(404)

        do_HEAD = do_GET

        def do_POST(self) -> None:
            path = unquote(urlsplit(self.path).path)
            hub.requests.append(f"POST {path}")
            size = self.headers.get("Content-Length")
            body = self.rfile.read(int(size)) if size else self.chunks()
            if hub.refuse or self.headers.get("Authorization") != "Bearer good":
                return self.answer(hub.refuse or 401, b'{"error": "Invalid credentials in Authorization header"}')
            if path == "/api/validate-yaml":
                return self.answer(200, b'{"errors": [], "warnings": []}')
            if path == "/api/repos/create":
                about = json.loads(body)
                name = f"{about['organization']}/{about['name']}"
                if name in hub.files:
                    return self.answer(409, json.dumps({"url": f"{hub.url}/{name}"}).encode())
                hub.files[name] = {".gitattributes": b""}
                if about.get("visibility") == "private":
                    hub.private.add(name)
                return self.answer(200, json.dumps({"url": f"{hub.url}/{name}"}).encode())
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/preupload/main", path):
                files = [
                    {"path": file["path"], "uploadMode": "regular", "shouldIgnore": False}
                    for file in json.loads(body)["files"]
                ]
                return self.answer(200, json.dumps({"files": files}).encode())
            if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)/commit/main", path):
                for line in map(json.loads, body.splitlines()):
                    if line["key"] == "file":
                        value = line["value"]
                        hub.files[match[1]][value["path"]] = base64.b64decode(value["content"])
                about = {"commitUrl": f"{hub.url}/{match[1]}/commit/1", "commitOid": hub.commit(match[1])}
                return self.answer(200, json.dumps(about).encode())
            return self.answer(404)

        def chunks(self) -> bytes:
            parts = []
            while length := int(self.rfile.readline(), 16):
                parts.append(self.rfile.read(length))
                self.rfile.readline()
            self.rfile.readline()
            return b"".join(parts)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
