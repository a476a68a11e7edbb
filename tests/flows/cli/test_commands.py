"""What the commands print when all is well."""

import csv
import io
import json
import sys

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml
from PIL import Image

from dalle_datasets.catalog.queries import run_sql
from dalle_model.config.presets import PRESETS
from dalle_model.generated.image_files import save_picture
from flows.cli.generate import draw_in_terminal
from flows.cli.main import main
from flows.cli.run import FLOWS


def run(*arguments):
    with pytest.raises(SystemExit) as ended:
        main(list(arguments))
    assert ended.value.code == 0


def test_version_and_help(capsys):
    run("--version")
    assert capsys.readouterr().out.startswith("dalle 0.")
    run("--help")
    printed = capsys.readouterr().out
    for command in (
        "demo",
        "run",
        "job",
        "prepare",
        "import-weights",
        "reconstruct",
        "generate",
        "rerank",
        "evaluate",
        "diagnose",
        "query",
        "lineage",
        "catalog",
        "config",
        "report",
        "site",
    ):
        assert command in printed


def test_every_flow_that_can_be_run_exists():
    from importlib import import_module

    for name in FLOWS:
        assert callable(getattr(import_module(f"flows.{name}"), name))


def test_presets_are_listed_with_what_they_are_for(capsys):
    run("config", "presets")
    printed = capsys.readouterr().out
    assert all(name in printed for name in PRESETS)


def test_diff_shows_what_differs(capsys):
    run("config", "diff", "large", "dalle-12b")
    assert "transformer.num_layers: 24 -> 64" in capsys.readouterr().out.splitlines()


def test_plan_prints_parameters_flops_and_memory(capsys):
    run("config", "plan", "--preset", "dalle-12b", "--world-size", "64")
    printed = capsys.readouterr().out
    assert {"12,292,836,992", "12,095,479,808", "73.560", "76.688", "53.13"} <= set(printed.split())


def test_plan_refuses_what_cannot_be_trained(capsys):
    for arguments, message in (
        (["--world-size", "5"], "train_transformer.batch_size=1024 does not split evenly over 5 devices; choose a multiple"),
        (["--sharding", "half"], "--sharding half does not exist; choose one of replicated, full, hybrid"),
    ):
        with pytest.raises(SystemExit) as ended:
            main(["config", "plan", "--preset", "dalle-12b", *arguments])
        assert ended.value.code == 2
        assert message in capsys.readouterr().err


def test_query_formats(capsys, catalogued_root, tmp_path, monkeypatch):
    root = ("--set", f"paths.data_root={catalogued_root.layout.root}")
    run("query", "drop_reasons", "--format", "csv", *root)
    rows = list(csv.DictReader(io.StringIO(capsys.readouterr().out)))
    assert {"reason": "http_4xx", "stage": "download"}.items() <= rows[0].items()
    run("query", "drop_reasons", "--format", "json", *root)
    assert json.loads(capsys.readouterr().out.splitlines()[0])["reason"] == "http_4xx"
    run("query", "select 6 * 7 as answer", *root)
    assert "42" in capsys.readouterr().out
    monkeypatch.setattr(sys, "stdin", io.StringIO("select count(*) as pairs from pairs"))
    run("query", "-", "--format", "json", *root)
    assert json.loads(capsys.readouterr().out) == {"pairs": 12}


def test_query_prints_text_as_it_is(capsys, catalogued_root):
    root = ("--set", f"paths.data_root={catalogued_root.layout.root}")
    run("query", "select ':smile: [bold]x[/]' as a, chr(27) || '[31m' || chr(8238) as b", *root)
    printed = capsys.readouterr().out
    assert ":smile: [bold]x[/]" in printed
    assert "\\x1b[31m\\u202e" in printed
    assert "\x1b" not in printed


def test_query_writes_valid_json_and_csv(capsys, catalogued_root):
    root = ("--set", f"paths.data_root={catalogued_root.layout.root}")
    odd = "select 'nan'::float as a, ['inf'::double, 1] as b, sum(i) as c, '\\x01'::blob as d, 1 as e, 2 as e from range(3) r(i)"
    run("query", odd, "--format", "json", *root)

    def refuse(constant):
        raise AssertionError(constant)

    assert json.loads(capsys.readouterr().out, parse_constant=refuse) == {"a": None, "b": [None, 1.0], "c": 3, "d": "01", "e": 2}
    run("query", "select 1 as e, 2 as e, 'x,y' as f", "--format", "csv", *root)
    assert capsys.readouterr().out == 'e,e,f\n1,2,"x,y"\n'


def test_query_writes_parquet(capfdbinary, catalogued_root):
    run("query", "runs", "--format", "parquet", "--set", f"paths.data_root={catalogued_root.layout.root}")
    assert pq.read_table(io.BytesIO(capfdbinary.readouterr().out)).num_rows > 5


def test_a_picture_file_tells_its_lineage_wherever_it_is(capsys, catalogued_root, tmp_path):
    root = ("--set", f"paths.data_root={catalogued_root.layout.root}")
    made = run_sql(catalogued_root.layout, "select generation_id, prompt from generations limit 1").to_pylist()[0]
    save_picture(tmp_path / "copied.png", np.zeros((8, 8, 3), np.uint8), made)
    run("lineage", made["generation_id"], "--format", "csv", *root)
    by_id = capsys.readouterr().out
    assert "training set" in by_id
    run("lineage", str(tmp_path / "copied.png"), "--format", "csv", *root)
    assert capsys.readouterr().out == by_id
    save_picture(tmp_path / "other.webp", np.zeros((8, 8, 3), np.uint8), {"generation_id": "0" * 16, "transformer_id": "away"})
    run("lineage", str(tmp_path / "other.webp"), "--format", "csv", *root)
    printed = capsys.readouterr()
    assert printed.out == f"fact,value\ngeneration_id,{'0' * 16}\ntransformer_id,away\n"
    assert "other.webp itself says" in printed.err


def test_the_list_names_every_query(capsys):
    run("query", "--list")
    printed = capsys.readouterr().out
    assert "lineage" in printed
    assert "generation_id" in printed


def test_catalog_commands(capsys, catalogued_root):
    root = ("--set", f"paths.data_root={catalogued_root.layout.root}")
    for command in ("migrate", "publish"):
        run("catalog", command, *root)
        assert str(catalogued_root.layout.root) in capsys.readouterr().out
    run("catalog", "rebuild", *root)
    assert "files ingested" in capsys.readouterr().out


def test_a_picture_in_the_terminal_has_two_pixels_in_a_character(tmp_path):
    Image.new("RGB", (4, 4), (255, 0, 0)).save(tmp_path / "red.png")
    drawn = draw_in_terminal(tmp_path / "red.png")
    assert drawn.plain == "▀▀▀▀\n▀▀▀▀\n"
    assert "#ff0000 on #ff0000" in str(drawn.spans[0].style)


def test_the_example_queries_the_catalog_as_any_duckdb_does(catalogued_root, run_example, tmp_path, capsys):
    run_example("query_catalog.py", catalogued_root.layout.root)
    assert "duplicate_pair" in capsys.readouterr().out
    assert (tmp_path / "best-pair").read_bytes() in {pair["image"] for pair in catalogued_root.pairs}


def test_pairs_leave_with_a_page_about_them(catalogued_root, tmp_path, capsys):
    command = ["export-pairs", str(tmp_path / "out"), "--format", "hf", "--set", f"paths.data_root={catalogued_root.layout.root}"]
    run(*command)
    assert "12 pairs in 2 files" in capsys.readouterr().out
    page = (tmp_path / "out" / "README.md").read_text()
    head = yaml.safe_load(page.split("---")[1])
    (configuration,) = head["configs"]
    named = {entry["split"]: sorted((tmp_path / "out").glob(entry["path"])) for entry in configuration["data_files"]}
    assert {split: len(paths) for split, paths in named.items()} == {"train": 1, "validation": 1}
    assert "| not known | 12 |" in page
    run(*command)
    assert "everything was there already" in capsys.readouterr().out
