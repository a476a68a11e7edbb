"""The card of an exported model: what it was trained on and how, what it reaches, and where it ends. From the catalog alone."""

import json
import re
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from dalle_datasets.store.layout import Layout
from dalle_model.config.tree import Config
from flows.report.by_heart import describe_memory
from flows.report.data import Row, rows
from flows.report.measured import describe_figures
from flows.report.seen import Record

MAX_TEXT = 200
"""Characters of a licence or a name of a source to print: they come from other people's pages."""
FEW_PAIRS = 10_000
"""Fewer pairs than this cannot teach a network much beyond them."""


def render_card(layout: Layout, config: Config, inputs: Mapping[str, str], seen: Sequence[Record] = ()) -> str:
    """The card, as Markdown, of the networks that `inputs` names ("transformer_id" and so on), with what they have `seen`.

    Raises `ValueError` when nothing is published, or the published catalog does not know the run that trained the transformer.
    """
    runs = rows(layout, "runs")
    made = {kind: _run_that_made(runs, kind, inputs[f"{kind}_id"]) for kind in ("tokenizer", "dvae", "clip", "transformer")}
    trained = made["transformer"]
    if trained is None and any(json.loads(run["result"]).get("transformer_id") == inputs["transformer_id"] for run in runs):
        raise ValueError(
            f"transformer {inputs['transformer_id']} was imported, not trained here; hand on the folder that it came from, "
            "which has its card"
        )
    if trained is None:
        raise ValueError(
            f"{layout.published_catalog} does not know the run that trained transformer {inputs['transformer_id']}; "
            "bring it up to date with `dalle run maintain_catalog`"
        )
    training_set_id = json.loads(trained["inputs"])["training_set_id"]
    training_set = next((row for row in rows(layout, "training_sets") if row["training_set_id"] == training_set_id), None)
    if training_set is None:
        raise ValueError(f"{layout.published_catalog} does not know training set {training_set_id}; run `dalle run maintain_catalog`")
    by_licence = rows(layout, "training_set_licences", training_set_id=training_set_id)
    before = [record for record in seen if record["data_id"] != training_set_id]
    all_licences = [*by_licence, *(row for record in _data_sets_before(before) for row in record["licences"])]
    return "\n".join(
        [
            *_head(training_set, config),
            *_data(training_set, by_licence),
            *_data_before(before, training_set),
            *_training(made),
            *_figures(layout, inputs, {kind: run or _newest_look(runs, kind, inputs[f"{kind}_id"]) for kind, run in made.items()}),
            *_limits(training_set, all_licences, made),
        ]
    )


def _run_that_made(runs: Sequence[Row], kind: str, made_id: str) -> Row | None:
    """The newest run with this network among its results but not among its inputs; None for imported ones."""
    for run in reversed(runs):
        if run["job"].startswith("import_"):
            continue
        if json.loads(run["result"]).get(f"{kind}_id") == made_id and f"{kind}_id" not in json.loads(run["inputs"]):
            return run
    return None


def _newest_look(runs: Sequence[Row], kind: str, network_id: str) -> Row | None:
    """The newest training that took a network over as it is, and looked at it."""
    looks = (run for run in reversed(runs) if run["job"] == f"train_{kind}" and json.loads(run["inputs"]).get(f"{kind}_id") == network_id)
    return next(looks, None)


def _head(training_set: Row, config: Config) -> list[str]:
    dvae, transformer = config.dvae, config.transformer
    return [
        "---",
        "library_name: open-dalle",
        "pipeline_tag: text-to-image",
        "---",
        "",
        f"# A DALL-E of {training_set['num_pairs']:,} captioned pictures",
        "",
        f"Draws {dvae.image_size} x {dvae.image_size} pictures for captions: a discrete VAE turns a picture into "
        f"{dvae.num_image_tokens:,} tokens, a sparse transformer with {transformer.num_layers} layers of "
        f"{transformer.d_model:,} writes them after the caption, and a CLIP ranks the candidates (OpenAI 2021, "
        "arXiv:2102.12092; made with open-dalle).",
        "",
        "```python",
        "from open_dalle import DALLE",
        "",
        'pictures = DALLE.load("THIS FOLDER").generate("what the picture should show")  # best first',
        'pictures[0].image.save("picture.png")',
        "```",
        "",
        'Or `dalle generate "what the picture should show" --model THIS_FOLDER`. Equal versions of torch, prompt and '
        "seed give equal pixels.",
        "",
    ]


def _data(training_set: Row, by_licence: Sequence[Row]) -> list[str]:
    lines = [
        "## Data",
        "",
        f"{training_set['num_pairs']:,} pairs of a caption and a picture, {training_set['num_validation']:,} of them for validation only "
        f"(training set `{training_set['training_set_id']}`, chosen by the query `{training_set['query']}`).",
        "",
        "| source | licence | pairs | pages |",
        "| --- | --- | ---: | ---: |",
    ]
    for row in by_licence:
        lines.append(f"| {plain(row['source'])} | {plain(row['licence'] or 'not known')} | {row['num_pairs']:,} | {row['num_pages']:,} |")
    return [*lines, ""]


def _data_sets_before(before: Sequence[Record]) -> list[Record]:
    """The training sets of earlier transformers, each once."""
    return list({record["data_id"]: record for record in before if record["role"] == "transformer"}.values())


def _data_before(before: Sequence[Record], training_set: Row) -> list[str]:
    """What networks saw that it began from, and what its other networks saw beyond that."""
    earlier = _data_sets_before(before)
    lines = []
    if earlier:
        lines += ["It began from a transformer that was trained before, so it has seen their pairs, too:", ""]
        lines += ["| training set | source | licence | pairs | pages |", "| --- | --- | --- | ---: | ---: |"]
        for record in earlier:
            for row in record["licences"]:
                cells = [f"`{plain(record['data_id'])}`", plain(row["source"]), plain(row["licence"] or "not known")]
                lines.append(f"| {' | '.join(cells)} | {_count(row['num_pairs'])} | {_count(row['num_pages'])} |")
        lines.append("")
    known = {source for record in earlier for source in record["sources"]} | set(training_set["sources"])
    others = {
        (record["role"], source)
        for record in before
        if record["role"] != "transformer"
        for source in record["sources"]
        if source not in known
    }
    for role in sorted({role for role, _ in others}):
        named = ", ".join(plain(source) for of, source in sorted(others) if of == role)
        lines += [f"Its {role} has seen pairs of {named} as well.", ""]
    return lines


def _training(made: Mapping[str, Row | None]) -> list[str]:
    lines = [
        "## Training",
        "",
        "| network | run | seed | updates | pairs an update | parameters | time |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: |",
    ]
    for kind, run in made.items():
        if run is None:
            lines.append(f"| {kind} | taken over, not trained here | | | | | |")
            continue
        config, result = json.loads(run["config"]), json.loads(run["result"])
        settings = config.get(f"train_{kind}", {}) if kind != "tokenizer" else {}
        cells = [
            kind,
            f"`{run['run_id']}`" + (f" from `{plain(start)}`" if (start := json.loads(run["inputs"]).get("start_id")) else ""),
            str(config.get("seed", "")),
            _count(result.get("num_steps", settings.get("max_steps"))),
            _count(settings.get("batch_size")),
            _count(result.get("num_parameters")),
            f"{run['duration_s']:,.0f} s" if run["duration_s"] is not None else "",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return [*lines, ""]


def _figures(layout: Layout, inputs: Mapping[str, str], made: Mapping[str, Row | None]) -> list[str]:
    results = {kind: json.loads(run["result"]) if run else {} for kind, run in made.items()}
    figures = {
        "dVAE, PSNR of validation pictures, dB": _number(results["dvae"].get("psnr"), 1),
        "transformer, nats per image token, pairs it learned": _number(
            results["transformer"].get("learned_image_loss", results["transformer"].get("image_loss")), 3
        ),
        "transformer, nats per image token, validation pairs": _number(results["transformer"].get("validation_image_loss"), 3),
        "transformer, nats per text token, pairs it learned": _number(
            results["transformer"].get("learned_text_loss", results["transformer"].get("text_loss")), 3
        ),
        "transformer, nats per text token, validation pairs": _number(results["transformer"].get("validation_text_loss"), 3),
        "CLIP, contrastive loss": _number(results["clip"].get("loss") or results["clip"].get("validation_loss"), 3),
    }
    lines = [
        "## Figures",
        "",
        "| what | value |",
        "| --- | ---: |",
        *(f"| {name} | {value} |" for name, value in figures.items() if value),
        "",
    ]
    judged = [run for run in rows(layout, "runs", job="generate_images") if _drew_with(run, inputs)]
    measured = [row for run in judged[-1:] for row in rows(layout, "evaluation", generations_run=run["run_id"])]
    lines += [*(f"- {said}" for said in describe_figures(measured)), *([""] if measured else [])]
    agreement = [row for run in judged[-1:] for row in rows(layout, "agreement", run_id=run["run_id"])]
    if agreement:
        lines += [
            "How often object, colour, background and layout are all right, by the demo's checker:",
            "",
            "| prompts | best of | all right |",
            "| --- | ---: | ---: |",
            *(f"| {row['prompt_set'].replace('_', ' ')} | {row['best_of']} | {row['all_right']:.0%} |" for row in agreement),
            "",
        ]
    return lines


def _limits(training_set: Row, by_licence: Sequence[Row], made: Mapping[str, Row | None]) -> list[str]:
    lines = ["## Limits", ""]
    unknown = sum(row["num_pairs"] for row in by_licence if row["licence"] is None)
    if unknown:
        lines.append(
            f"- Nobody recorded a licence for {unknown:,} of its pairs. Find out whether pictures that resemble them may be published."
        )
    if training_set["num_pairs"] < FEW_PAIRS:
        lines.append(
            f"- {training_set['num_pairs']:,} pairs are few: expect it to repeat what it saw, and to fail on words and "
            "combinations it did not."
        )
    if made["transformer"]:
        lines.append(f"- {describe_memory(json.loads(made['transformer']['result']))}")
    lines += [
        "- It knows the words of its captions and little else, in their language only, and no text longer than it was trained with.",
        "- Nothing here filters prompts or pictures for safety; bias of the data is bias of the model.",
        "",
    ]
    return lines


def _drew_with(run: Row, inputs: Mapping[str, str]) -> bool:
    used = json.loads(run["inputs"])
    return all(used.get(name) == inputs[name] for name in ("transformer_id", "dvae_id", "clip_id"))


def plain(text: str) -> str:
    """Text of other people's pages as it can stand in a table of a Markdown file: one line, no markup, not too long."""
    text = " ".join(text.split())
    text = text if len(text) <= MAX_TEXT else text[: MAX_TEXT - 1] + "…"
    return re.sub(r"([\\`*_\[\]()!|#~])", r"\\\1", escape(text, quote=False))


def _count(value: Any) -> str:
    return f"{value:,}" if isinstance(value, int) else ""


def _number(value: Any, places: int) -> str:
    return f"{value:.{places}f}" if isinstance(value, int | float) else ""
