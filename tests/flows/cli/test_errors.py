"""Whatever goes wrong, a person gets one line that says where, what and what to do, and an exit status: 1 the work, 2 the request."""

import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import prepare
from flows.cli.errors import exit_status
from flows.cli.main import main


def fails(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str]:
    """Exit status and last line of standard error. A traceback would be an exception here."""
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert isinstance(ended.value.code, int)
    lines = capsys.readouterr().err.strip().splitlines()
    return ended.value.code, re.sub(r"\s+", " ", lines[-1] if lines else "")


def test_an_unknown_preset(capsys):
    assert fails(capsys, "demo", "--preset", "dalle-12") == (2, "dalle: preset 'dalle-12' does not exist; did you mean 'dalle-12b'?")


def test_an_unknown_setting(capsys):
    assert fails(capsys, "demo", "--set", "transformer.num_layer=8") == (
        2,
        "dalle: transformer.num_layer: no such setting; did you mean 'transformer.num_layers'?",
    )


def test_a_setting_of_the_wrong_kind(capsys):
    assert fails(capsys, "demo", "--set", "transformer.num_layers=many") == (
        2,
        "dalle: transformer.num_layers: 'many' is not a whole number",
    )
    assert fails(capsys, "demo", "--set", "transformer") == (
        2,
        "dalle: --set transformer: needs the form PATH=VALUE, e.g. --set transformer.num_layers=8",
    )


def test_an_unknown_option_flow_and_query(capsys):
    status, line = fails(capsys, "demo", "--prest", "demo")
    assert (status, line.startswith("dalle: No such option: --prest")) == (2, True)
    assert fails(capsys, "run", "train_clip", "--refresh") == (
        2,
        "dalle: --refresh asks a source what is new, which train_clip does not read; run collect_pairs --refresh first",
    )
    assert fails(capsys, "run", "train_clips") == (2, "dalle: flow 'train_clips' does not exist; did you mean 'train_clip'?")
    assert fails(capsys, "query", "agrement") == (2, "dalle: query 'agrement' does not exist; did you mean 'agreement'?")


def test_a_data_root_that_cannot_be_written(capsys, tmp_path):
    in_the_way = tmp_path / "file"
    in_the_way.touch()
    status, line = fails(capsys, "demo", "--set", f"paths.data_root={in_the_way}/data")
    assert status == 2
    assert "cannot be written (Not a directory); choose another folder with --set paths.data_root=… or DALLE_DATA_ROOT" in line


def test_a_port_that_is_taken(capsys):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        status, line = fails(capsys, "site", "--port", str(port))
    assert status == 2
    assert line.startswith(f"dalle: source.port={port}: 127.0.0.1:{port} cannot be used")
    assert line.endswith("choose another port, or 0 for any free one")


def test_a_corrupted_shard(capsys, tmp_path):
    folder = Layout(tmp_path).pairs("emoji_scenes")
    folder.mkdir(parents=True)
    (folder / "part-00000.parquet").write_bytes(b"PAR1 this is no Parquet file PAR1")
    run_dir = prepare("train_bpe", preset("demo", {"paths.data_root": str(tmp_path)}), {"pairs": "pairs/emoji_scenes", "pairs_id": "1"})
    status, line = fails(capsys, "job", "train_bpe", str(run_dir))
    assert status == 1
    assert "part-00000.parquet is not a readable Parquet file" in line
    assert "run the stage again" in line


def test_a_missing_checkpoint(capsys, tmp_path):
    status, line = fails(capsys, "generate", "a red car", "--set", f"paths.data_root={tmp_path}")
    assert status == 2
    assert (
        "holds no finished collection of pairs; run `dalle run collect_pairs` with the same settings, or `dalle demo` for everything"
        in line
    )


def test_a_catalog_that_nobody_has_published(capsys, tmp_path):
    status, line = fails(capsys, "query", "agreement", "--set", f"paths.data_root={tmp_path}")
    assert status == 2
    assert "no catalog has been published yet; run `dalle demo`" in line


def test_a_run_directory_that_is_none(capsys, tmp_path):
    status, line = fails(capsys, "job", "train_bpe", str(tmp_path))
    assert (status, "holds no config.json" in line) == (2, True)


@pytest.mark.prefect
def test_no_pairs_left_after_filtering(capsys, tmp_path, prefect_server):
    settings = [f"paths.data_root={tmp_path}", "source.num_scenes=64", "download.runner=threads", "filter.min_side=1000"]
    status, line = fails(capsys, "run", "collect_pairs", *(part for text in settings for part in ("--set", text)))
    assert status == 2
    assert "too_small" in line
    assert "filter.min_side" in line


@pytest.mark.prefect
@pytest.mark.skipif(sys.platform == "win32", reason="uses a limit on file sizes")
def test_a_full_disk(tmp_path, prefect_server):
    """A limit on the size of files stands in for the full disk: writing fails in the middle of a file, as there."""
    code = f"""
import resource
from flows.cli.main import main
from flows.runtime.parameters import find_config, remember
remember(find_config(overrides={{"paths.data_root": "{tmp_path}", "source.num_scenes": 64}}))
resource.setrlimit(resource.RLIMIT_FSIZE, (2_000, 2_000))
main(["run", "collect_pairs", "--set", "paths.data_root={tmp_path}", "--set", "source.num_scenes=64"])
"""
    environment = {**os.environ, "PREFECT_API_URL": prefect_server}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment)
    last = done.stderr.strip().splitlines()[-1]
    assert done.returncode == 1, done.stderr
    assert ".parquet: File too large" in last
    assert "free some space or choose another data root" in last
    assert "Traceback" not in done.stderr
    assert not list(Path(tmp_path).rglob("*.partial")), "half a file must not stay behind"


@pytest.mark.prefect
def test_a_prefect_server_that_does_not_answer(capsys, tmp_path, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("PREFECT_API_URL", f"http://127.0.0.1:{port}/api")
    monkeypatch.setattr("flows.runtime.prefect_server.OWN_SERVER_TIMEOUT_S", 0.2)
    status, line = fails(capsys, "run", "train_clip", "--set", f"paths.data_root={tmp_path}")
    assert status == 1
    assert line.endswith("start it with `prefect server start`, or unset PREFECT_API_URL")


def test_a_bug_keeps_its_traceback():
    assert exit_status(KeyError("x")) is None
    assert exit_status(ZeroDivisionError()) is None
