"""`dalle doctor`: each fault is a line with a remedy, and decides the exit status."""

import os
import threading
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from flows.cli.main import main
from flows.operation import doctor
from flows.operation.site import read_site


@pytest.fixture
def examine(tmp_path, monkeypatch):
    """Examine the site of this folder, whose data root is `data`; returns what -> finding."""
    monkeypatch.delenv("PREFECT_API_URL", raising=False)
    (tmp_path / "site.toml").write_text("[server]\nport = 4222\n")
    return lambda: {finding.what: finding for finding in doctor.examine(read_site(tmp_path / "site.toml"))}


def test_a_machine_before_the_first_up(examine, tmp_path, capsys):
    found = examine()
    states = {name: finding.state for name, finding in found.items()}
    assert (states["python"], states["data root"], states["installation"]) == ("ok", "warning", "ok")
    assert "prefect 3." in found["packages"].detail or found["packages"].state == "warning"
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--site", str(tmp_path / "site.toml")])
    assert ended.value.code == 0
    assert "does not exist yet; `dalle up` makes it" in " ".join(capsys.readouterr().out.split())


def test_packages_are_compared_with_the_lock_file(examine, tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    monkeypatch.setattr(doctor, "LOCK_FILE", lock)
    assert "cannot be compared; run this in a checkout" in examine()["packages"].detail
    lock.write_text("duckdb==0.1 ; python_version < '3.12' \\\n    --hash=x\nduckdb==0.2 \\\nnot-installed-here==1\n")
    found = examine()["packages"]
    assert found.state == "warning"
    assert found.detail.startswith("not as tested: duckdb 1.")
    assert found.detail.endswith(", not 0.1 or 0.2; `make setup` installs what was")


def test_a_damaged_readers_copy_little_room_and_files_of_killed_writers(examine, catalogued_root, tmp_path, monkeypatch, capsys):
    layout = catalogued_root.layout
    assert examine()["catalog"].state == "ok"
    (layout.root / "x.host-1.partial").touch()
    monkeypatch.setattr(doctor, "LITTLE_ROOM_BYTES", 2**60)
    layout.published_catalog.write_bytes(b"no database")
    found = examine()
    assert found["room"].detail.endswith("; `dalle catalog gc` says what nothing refers to")
    assert found["files"].detail.startswith("1 unfinished files of writers that were killed; `dalle catalog gc --delete`")
    assert (found["catalog"].state, "dalle catalog publish" in found["catalog"].detail) == ("error", True)
    with pytest.raises(SystemExit) as ended:
        main(["doctor", "--site", str(tmp_path / "site.toml")])
    assert ended.value.code == 1


def test_a_server_of_another_version_with_another_clock(examine, monkeypatch):
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._say(b'"2.0.0"')

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self._say(b'{"events": []}' if self.path.endswith("/events/filter") else b"[]")

        def _say(self, body: bytes) -> None:
            self.send_response_only(200)
            self.send_header("Date", formatdate(0, usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{server.server_port}/api")
        found = examine()
        server.shutdown()
    assert (found["server"].state, "prefect 2.0.0 at" in found["server"].detail) == ("error", True)
    assert (found["clock"].state, "s off the server's" in found["clock"].detail) == ("error", True)
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:1/api")
    assert "no Prefect server answers at http://127.0.0.1:1/api" in examine()["server"].detail


def test_a_data_root_of_somebody_else(examine, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setattr(os, "access", lambda path, mode: False)
    assert examine()["data root"].detail.endswith("cannot be written by this user; correct its owner, or choose another data_root")
