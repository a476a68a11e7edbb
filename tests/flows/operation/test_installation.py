"""What `dalle up` and `dalle down` refuse or find before Prefect is started."""

import os
import socket
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from dalle_datasets.store.locks import held
from flows.operation import installation, server_api
from flows.operation.processes import MARK, end, listener_of, marked
from flows.operation.server_api import ServerApi
from flows.operation.site import read_site
from flows.runtime.prefect_server import PrefectServerFailed


@pytest.fixture
def site(tmp_path):
    """A site of its own folder."""
    return make_site(tmp_path / "birds")


def make_site(folder, text: str = 'data_root = "../root"'):
    folder.mkdir()
    (folder / "site.toml").write_text(text)
    return read_site(folder / "site.toml")


def refused(site, says: str) -> None:
    """`up` says this and has started nothing."""
    with pytest.raises(ValueError, match=says):
        installation.up(site, print, lambda record: pytest.fail("it started"))
    assert not marked(site.home)
    assert installation.running(site.data_root) is None


def test_two_sites_on_one_data_root(site, tmp_path):
    site.home.mkdir(parents=True)
    installation._claim(site, site.home)
    other = make_site(tmp_path / "fish")
    refused(other, f"root belongs to the site {site.path}; .* give this one another data_root, or delete")
    site.path.write_text('data_root = "../elsewhere"')
    installation._claim(other, site.home)  # which is free now
    assert (site.home / "site").read_text() == f"{other.path}\n"


def test_a_port_that_is_taken(tmp_path):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        site = make_site(tmp_path / "birds", f"[server]\nport = {port}")
        assert listener_of(port) == os.getpid()
        refused(site, f"127.0.0.1:{port} is taken by process {os.getpid()} .*; end that, or set another server.port")
        with pytest.raises(PrefectServerFailed, match="no Prefect server answers at"):
            ServerApi(f"http://127.0.0.1:{port + 1 if port < 65_535 else 1}/api").get("/health")


def test_no_room_for_the_database(site, monkeypatch):
    monkeypatch.setattr(installation, "MIN_FREE_BYTES", 2**60)
    refused(site, "MB are free, and its database wants .*; make room, or name a PostgreSQL database in server.database")


def test_another_that_is_just_starting(site):
    site.home.mkdir(parents=True)
    with held(site.home / "lock"):
        refused(site, "another `dalle up` is just starting or ending; look again in a minute, or run `dalle down`")


def test_down_ends_what_was_left_even_what_hears_nothing(site):
    """A process that ignores SIGTERM, started by one that is gone already; and nobody else's."""
    site.home.mkdir(parents=True)
    ready = site.home / "ready"
    deaf = f"import pathlib, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); pathlib.Path({str(ready)!r}).touch()"
    deaf += "; time.sleep(300)"
    parent = f"import subprocess, sys; subprocess.Popen([sys.executable, '-c', {deaf!r}], start_new_session=True)"
    subprocess.run([sys.executable, "-c", parent], env={**os.environ, MARK: str(site.home)}, check=True)
    while not ready.exists():
        time.sleep(0.02)
    assert len(marked(site.home)) == 1
    assert not marked(site.home.with_name("operation2"))
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(300)"]) as stranger:
        assert end(lambda: marked(site.home), 0.5) == 1
        assert stranger.poll() is None
        stranger.kill()
    assert installation.down(site.data_root, print) == 0


def test_down_leaves_the_installation_of_another_machine_alone(site, monkeypatch):
    site.home.mkdir(parents=True)
    with held(site.home / "lock"):
        monkeypatch.setattr(installation.platform, "node", lambda: "elsewhere")
        with pytest.raises(ValueError, match=r"root is served from .* \(process \d+\); run `dalle down` there"):
            installation.down(site.data_root, print)


def test_children_are_told_their_site_and_nothing_of_other_servers(site, monkeypatch):
    monkeypatch.setenv("PREFECT_API_URL", "http://elsewhere/api")
    monkeypatch.setenv("PREFECT_SERVER_DATABASE_CONNECTION_URL", "sqlite:///elsewhere")
    told = installation.environment_of(site, site.home)
    assert told["PREFECT_API_URL"] == "http://127.0.0.1:4200/api"
    assert told["PREFECT_SERVER_DATABASE_CONNECTION_URL"] == f"sqlite+aiosqlite:///{site.home}/prefect/prefect.db"
    assert told["PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT"] == "false"
    assert told["PREFECT_SERVER_ANALYTICS_ENABLED"] == "false"


def test_what_dies_at_once_is_started_again_after_longer_and_longer_pauses(site, monkeypatch):
    said = []
    site.home.mkdir(parents=True)
    children = installation.Children(site, site.home, said.append)
    children._commands = {"server": [sys.executable, "-c", "raise SystemExit(3)"]}
    children._start("server")
    began = time.monotonic()

    def stop_after_two(seconds: float, sleep=time.sleep) -> None:
        if len(said) == 2 or time.monotonic() - began > 30:
            raise KeyboardInterrupt
        sleep(seconds)

    monkeypatch.setattr(installation.time, "sleep", stop_after_two)
    with pytest.raises(KeyboardInterrupt):
        children.keep_alive()
    assert said[0].startswith("server ended with status 3, see ")
    assert [text.partition("again in ")[2] for text in said] == ["1 s", "2 s"]


def test_a_server_that_is_busy_is_asked_again(monkeypatch):
    """Prefect answers 503 while its database is locked."""
    monkeypatch.setattr(server_api, "PAUSES_S", (0.0, 0.0))
    answers = [503, 503, 200, 503, 503, 503]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(answers.pop(0))
            self.end_headers()
            self.wfile.write(b"true")

        def log_message(self, *_):
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        api = ServerApi(f"http://127.0.0.1:{server.server_port}/api")
        assert api.get("/health") is True
        with pytest.raises(PrefectServerFailed, match="refused /health with status 503; look into its log"):
            api.get("/health")
        server.shutdown()
    assert not answers
