"""Real flows on a real server, at the smallest size."""

import json

import pytest
from prefect.client.orchestration import get_client

from dalle_datasets.catalog.connection import connect
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import list_parts
from flows.cli.main import main
from flows.runtime.prefect_server import PrefectServer, PrefectServerFailed

pytestmark = pytest.mark.prefect


def run_flow(capsys, name, root, *more):
    with pytest.raises(SystemExit) as ended:
        main(["run", name, *more, "--set", f"paths.data_root={root}", "--set", "source.num_scenes=64", "--set", "download.runner=threads"])
    captured = capsys.readouterr()
    assert ended.value.code == 0, captured.err
    return json.loads(captured.out), captured.err


def test_pairs_are_collected_catalogued_and_published_once(capsys, tmp_path, prefect_server):
    first, progress = run_flow(capsys, "collect_pairs", tmp_path)
    assert first["filter"]["num_pairs"] >= 64
    assert "filter: done in" in progress
    layout = Layout(tmp_path)
    report = layout.collection_report.read_bytes()
    assert f"{first['filter']['num_pairs']:,} pairs out of".encode() in report
    layout.collection_report.chmod(0o400)  # a report that was written again would be another file
    again, _ = run_flow(capsys, "collect-pairs", tmp_path)
    assert layout.collection_report.stat().st_mode & 0o777 == 0o400
    assert [path.name for path in list_parts(layout.collections("emoji_scenes"))] == ["run-00001.parquet"]
    assert again["filter"]["skipped"]
    assert again["filter"]["pairs_id"] == first["filter"]["pairs_id"]
    fresh, _ = run_flow(capsys, "collect_pairs", tmp_path, "--refresh")
    # The demo's site gives no ETag, so its pictures are fetched again; they are the same.
    assert (fresh["discover"]["skipped"], fresh["discover"]["num_new"]) == (False, 0)
    assert fresh["filter"]["pairs_id"] == first["filter"]["pairs_id"]
    path, _ = run_flow(capsys, "maintain_catalog", tmp_path)
    assert path == str(layout.published_catalog)
    with get_client(sync_client=True) as client:
        names = {run.name for run in client.read_flow_runs()}
    assert {"collect-pairs emoji_scenes demo 32px", "maintain-catalog emoji_scenes demo 32px"} <= names
    with connect(layout.catalog) as con:
        assert con.execute("select count(*) from pairs").fetchall() == [(first["filter"]["num_pairs"],)]
        assert con.execute("select count(*) from dropped_pairs").fetchall()[0][0] > 50


def test_flow_and_task_runs_are_recorded(prefect_server):
    """Prefect's own temporary server loses most records of a short run; ours must not."""
    from prefect import flow, task

    @task
    def double(number: int) -> int:
        return 2 * number

    @flow
    def doubles() -> list[int]:
        return [double(number) for number in range(20)]

    with get_client(sync_client=True) as client:
        count = {"task_runs": {"state": {"type": {"any_": ["COMPLETED"]}}, "name": {"like_": "double"}}}
        assert doubles() == [2 * number for number in range(20)]
        PrefectServer(prefect_server, process=object(), log=None).drain()
        assert client.request("POST", "/task_runs/count", json=count).json() == 20


def test_a_server_that_goes_away_is_a_sentence():
    import httpx

    server = PrefectServer("http://127.0.0.1:1/api", process=None, log=None)
    with (
        pytest.raises(PrefectServerFailed, match=r"at http://127.0.0.1:1/api went away \(refused\); start it again; finished work is kept"),
        server.in_use(),
    ):
        raise httpx.ConnectError("refused")
    with pytest.raises(ZeroDivisionError), server.in_use():
        raise ZeroDivisionError
