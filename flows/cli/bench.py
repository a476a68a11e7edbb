"""`dalle bench scenes`: six questions that any model may be asked, and a leaderboard."""

import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from dalle_model.generator import Generator

app = typer.Typer(help="Benchmarks that need no weights of others.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Benchmarks that need no weights of others."""


@app.command("scenes")
def scenes(
    models: Annotated[list[str] | None, typer.Argument(help="Model folders (`dalle export`) or finished data roots.")] = None,
    write: Annotated[Path | None, typer.Option(help="Write the training pictures into this folder and stop.")] = None,
    num_pairs: Annotated[int, typer.Option(min=1, help="How many training pictures to write.")] = 5_000,
    num_prompts: Annotated[int, typer.Option(min=2, max=1_000, help="Prompts of each question and split.")] = 16,
    num_images: Annotated[int, typer.Option(min=1, max=512, help="Candidates for each prompt.")] = 8,
    seed: Annotated[int, typer.Option(help="Seed of the pictures.")] = 0,
    budget: Annotated[str, typer.Option(help="What training took, to stand in the table; of a data root it is read.")] = "",
    leaderboard: Annotated[Path, typer.Option(help="The file of results; rows are added, and those of the same model replaced.")] = Path(
        "leaderboard.json"
    ),
) -> None:
    """Ask GenEval's six questions on scenes of OpenMoji glyphs, with an exact judge: one object, two objects, counting, colours, position,
    colour attribution; of scenes that may be trained on, of unseen ones, and of held-out pairs.

    `dalle bench scenes --write FOLDER` writes what to train on, `dalle train FOLDER`, `dalle export MODEL` and `dalle bench scenes MODEL`
    make a row. Any other model may enter, too; then `seen` means nothing for it. An interrupted bench goes on where it was.
    """
    if write is not None:
        write_training_pictures(write, num_pairs)
        typer.echo(f"{num_pairs:,} captioned pictures: {write}; next: dalle train {write} --budget 30m")
    elif not models:
        raise ValueError("give model folders or data roots to ask, or --write FOLDER for what to train on")
    else:
        from flows.cli.display import on_terminal

        for model in models:
            with on_terminal():
                row = ask_model(model, leaderboard, num_prompts, num_images, seed, budget)
            keep_row(leaderboard, row)
        print_rows(read_rows(leaderboard))
        typer.echo(f"rows, with all questions and intervals: {leaderboard}")


def write_training_pictures(folder: Path, num_pairs: int) -> None:
    """A folder of pictures with a metadata.csv. Raises `ValueError` when something else lies there."""
    import csv

    from PIL import Image

    from dalle_datasets.demo.scene_questions import training_scenes
    from dalle_datasets.store.parquet import atomic_path

    if folder.exists() and any(path.suffix not in (".png", ".csv") for path in folder.iterdir()):
        raise ValueError(f"{folder} holds other files; choose a new folder")
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / "metadata.csv") as partial, partial.open("w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["file_name", "caption"])
        for number, scene in enumerate(training_scenes(num_pairs)):
            Image.fromarray(scene.draw()).save(folder / f"{number:06}.png")
            table.writerow([f"{number:06}.png", scene.caption()])


@dataclass(frozen=True)
class Entrant:
    """A model that is asked."""

    name: str
    model_id: str
    generator: "Generator"
    training_s: float | None
    """Of all its networks, where the runs that trained them are there."""


def ask_model(path: str, leaderboard: Path, num_prompts: int, num_images: int, seed: int, budget: str) -> dict[str, Any]:
    """A row of the leaderboard."""
    from dalle_datasets.demo.scene_judge import SceneJudge
    from dalle_datasets.demo.scene_questions import VERSION
    from dalle_model.evaluation.scenes import ask, asked_scenes, figures, judge_truth
    from flows.runtime.progress import reporter, watched

    asked = asked_scenes(num_prompts)
    with watched(f"bench {Path(path).name}") as stage:
        report, judge, entrant = reporter(stage), SceneJudge(), open_entrant(path)
        networks = entrant.generator.networks
        side = networks.dvae.config.image_size
        error = judge_truth(judge, asked, side)
        started, rows = time.monotonic(), []
        settings = {"version": VERSION, "num_images": num_images, "seed": seed, "sampling": str(entrant.generator.sampling)}
        key = json.dumps({"model": entrant.model_id, **settings}, sort_keys=True)

        def draw(caption: str) -> Any:
            return [picture.image for picture in entrant.generator.draw(caption, num_images, seed)]

        for row in ask(draw, judge, asked, leaderboard.with_suffix(".jsonl"), key):
            rows.append(row)
            report(len(rows), len(asked), "prompts")
    return {
        "name": entrant.name,
        "model_id": entrant.model_id,
        **settings,
        "num_prompts": num_prompts,
        "image_size": side,
        "image_tokens": networks.dvae.config.num_image_tokens,
        "parameters": {
            name: sum(parameter.numel() for parameter in network.parameters())
            for name, network in {"transformer": networks.transformer, "dvae": networks.dvae, "clip": networks.clip.network}.items()
        },
        "training_s": entrant.training_s,
        "budget": budget,
        "bench_s": round(time.monotonic() - started, 1),
        "judge_error": error,
        "figures": figures(rows),
    }


def open_entrant(path: str) -> Entrant:
    """The model in a folder, or the networks that are current in a data root. Raises `ValueError` when it is neither."""
    from dalle_datasets.store.identity import fingerprint
    from dalle_model.generator import Generator
    from dalle_model.model_folder import MODEL, open_model, read_model_folder
    from flows.runtime.parameters import find_config
    from flows.runtime.upstream import inputs_of

    folder = Path(path).expanduser()
    if (folder / MODEL).exists() or not (folder / "runs").is_dir():
        model = read_model_folder(folder)
        return Entrant(folder.resolve().name, model.id, open_model(model), None)
    config = find_config(None, {"paths.data_root": str(folder)})
    inputs = inputs_of("generate_images", config)
    ids = {name: value for name, value in inputs.items() if name.endswith("_id")}
    seconds = [_training_s(folder / inputs[kind]) for kind in ("transformer", "dvae", "clip")]
    known = None if any(value is None for value in seconds) else round(sum(value or 0.0 for value in seconds), 1)
    return Entrant(folder.resolve().name, fingerprint(ids), Generator.open(config, inputs), known)


def _training_s(network: Path) -> float | None:
    try:
        return float(json.loads((network.parent / "result.json").read_text())["duration_s"])
    except (OSError, ValueError, KeyError):
        return None


def read_rows(leaderboard: Path) -> list[dict[str, Any]]:
    """The rows of a leaderboard, none where there is no file. Raises `ValueError` when it is none."""
    if not leaderboard.exists():
        return []
    try:
        rows = json.loads(leaderboard.read_text(encoding="utf-8"))["rows"]
        return [row for row in rows if row["figures"] is not None]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{leaderboard} is no leaderboard of `dalle bench scenes` ({error}); name another file") from None


def keep_row(leaderboard: Path, row: Mapping[str, Any]) -> None:
    """Add a row, in place of an earlier one of the same model and settings; the best first."""
    from dalle_datasets.store.parquet import atomic_path

    same = ("model_id", "version", "num_images", "num_prompts", "seed", "sampling")
    others = [other for other in read_rows(leaderboard) if any(other[name] != row[name] for name in same)]
    rows = sorted([*others, dict(row)], key=lambda row: (-row["version"], -_share(row, "all", "held_out", row["num_images"])["right"]))
    with atomic_path(leaderboard) as partial:
        partial.write_text(json.dumps({"bench": "scenes", "rows": rows}, indent=1) + "\n", encoding="utf-8")


def _share(row: Mapping[str, Any], question: str, split: str, best_of: int) -> dict[str, Any]:
    wanted = (question, split, best_of)
    return next(f for f in row["figures"] if (f["question"], f["split"], f["best_of"]) == wanted)


def print_rows(rows: list[dict[str, Any]]) -> None:
    """The leaderboard: a line for each model and split."""
    from rich.table import Table

    from dalle_datasets.demo.scene_questions import QUESTIONS, SPLITS
    from flows.cli.output import printable, results_console

    table = Table("model", "weights", "training", "split", "best of", *(name.replace("_", " ") for name in (*QUESTIONS, "all")), box=None)
    for row in rows:
        took = row["budget"] or (f"{row['training_s']:,.0f} s" if row["training_s"] is not None else "")
        about = [printable(row["name"]), f"{sum(row['parameters'].values()) / 1e6:.1f} M", printable(took)]
        for split in SPLITS:
            for best_of in sorted({1, row["num_images"]}):
                cells = [_share(row, question, split, best_of) for question in (*QUESTIONS, "all")]
                shares = [f"{cell['right']:.2f}" for cell in cells[:-1]]
                last = f"{cells[-1]['right']:.2f} [{cells[-1]['low']:.2f}, {cells[-1]['high']:.2f}]"
                table.add_row(*about, split.replace("_", " "), str(best_of), *shares, last)
                about = ["", "", ""]
    console = results_console()
    console.print(table)
    if rows:
        errors = [row["judge_error"] for row in rows]
        console.print(f"The judge gets at most {max(errors):.1%} of rendered truth wrong. Intervals are of 95%, over prompts.")
