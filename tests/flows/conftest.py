"""One Prefect server for the whole test session, started only when a test asks for it."""

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before anything imports Prefect: no telemetry, no log lines between pytest's dots.
os.environ.setdefault("DO_NOT_TRACK", "1")
os.environ.setdefault("PREFECT_SERVER_ANALYTICS_ENABLED", "false")
os.environ.setdefault("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL", "CRITICAL")


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a private server with a database of its own.

    Migrating a fresh database takes 13 s of CPU, so a migrated one is kept in the temporary folder, for its Prefect version only.
    """
    from importlib import metadata

    from flows.runtime.prefect_server import private_server

    home = tmp_path_factory.mktemp("prefect")
    template = Path(tempfile.gettempdir()) / f"open-dalle-prefect-{metadata.version('prefect')}-{os.getuid()}.db"
    if template.exists():
        shutil.copy(template, home / "prefect.db")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PREFECT_HOME", str(home))
        patch.delenv("PREFECT_API_URL", raising=False)
        with private_server(home) as server:
            server.wait()
            if not template.exists():  # VACUUM INTO gives a consistent copy of a database in use
                partial = template.with_suffix(f".{os.getpid()}")
                with sqlite3.connect(home / "prefect.db") as database:
                    database.execute("vacuum into ?", (str(partial),))
                partial.rename(template)
            from prefect.settings import PREFECT_API_URL, PREFECT_HOME, temporary_settings

            # Prefect may have been imported, with its settings, by an earlier test.
            with temporary_settings({PREFECT_API_URL: server.url, PREFECT_HOME: home}):
                yield server.url
