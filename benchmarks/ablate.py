"""What does a choice of the paper matter at this size? `python benchmarks/ablate.py NAME DATA_ROOT [--seeds 3] [--set PATH=VALUE …]`.

Every variant is the whole demo (`run_pipeline`, preset demo) with one thing changed, once for each training seed, judged by the strict
checker. All runs are ordinary runs of DATA_ROOT: what two variants share is made once, and an interrupted command goes on where it was.
The first variant is the demo as it is; the others are compared with it prompt by prompt. `--list` names the ablations.
"""

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from bench_quality import Sets, expected_best, sorted_by_rank
from bench_quality import run as run_job
from numpy.typing import NDArray

from dalle_datasets.prompts.write import scene_prompts, write_prompts
from dalle_datasets.store.layout import Layout
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.evaluation.estimates import share_estimate
from dalle_model.sampling.rerank import GROUP_SIZES, bootstrap_interval
from flows.cli.demo import prefect_flows
from flows.cli.options import parse_settings
from flows.runtime.pipeline_result import finished_pipeline
from flows.runtime.upstream import inputs_of

Variants = Mapping[str, Mapping[str, Any]]
AS_IT_IS = "as it is"

ABLATIONS: dict[str, tuple[str, Variants]] = {
    "rerank-n": ("best of N by CLIP, N = 1 … sampling.num_images", {}),
    "temperature": (
        "temperature of sampling; 1 in the paper",
        {f"temperature {value:g}": {"sampling.temperature": value} for value in (0.5, 0.75, 1.25)},
    ),
    "masks": ("sparse attention against full", {"full masks": {"transformer.attention": "full"}}),
    "kl-weight": (
        "weight of the dVAE's KL term; 6.6 in the paper",
        {f"KL weight {value:g}": {"train_dvae.kl_weight": value} for value in (0.0, 6.6)},
    ),
    "relaxation": ("Gumbel-softmax against straight-through", {"straight-through": {"train_dvae.straight_through": True}}),
    "bpe-dropout": ("BPE dropout; 10% in the paper, none in the demo", {"BPE dropout 10%": {"tokenizer.bpe_dropout": 0.1}}),
    "loss-weights": (
        "weight of the text loss; 1/8 in the paper",
        {f"text loss {value:g}": {"train_transformer.text_loss_weight": value} for value in (0.03125, 0.5)},
    ),
    "text-loss": ("with and without a loss of text tokens", {"no text loss": {"train_transformer.text_loss_weight": 0.0}}),
    "pads": ("a pad vector for each text position against one", {"one pad": {"transformer.pads": "one"}}),
    "codebook": (
        "size of the codebook; 1,024 in the demo",
        {f"{size} tokens": {"dvae.codebook_size": size} for size in (256, 2_048)},
    ),
}
"""Name -> (what it is about, variant -> settings that differ from the demo's)."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("name", nargs="?", choices=sorted(ABLATIONS), help="which ablation")
    parser.add_argument("data_root", nargs="?", type=Path, help="a folder of its own, or a finished demo's, whose runs are used")
    parser.add_argument("--seeds", type=int, default=3, help="training seeds")
    parser.add_argument("--set", action="append", metavar="PATH=VALUE", help="a setting of all variants, e.g. a smaller budget")
    parser.add_argument("--list", action="store_true", help="name the ablations")
    arguments = parser.parse_args()
    if arguments.list or not arguments.name or not arguments.data_root:
        for name, (about, variants) in ABLATIONS.items():
            print(f"{name:14}{about}: {', '.join([AS_IT_IS, *variants])}")
        return
    base = {**parse_settings(arguments.set), "paths.data_root": str(arguments.data_root)}
    about, variants = ABLATIONS[arguments.name]
    drawn = {name: [draw({**base, **changes, "seed": seed}) for seed in range(arguments.seeds)] for name, changes in changed(variants)}
    print(f"\n### {arguments.name}: {about} ({arguments.seeds} training seeds)\n")
    print_table(drawn)
    with (arguments.data_root / "ablations.jsonl").open("a", encoding="utf-8") as file:
        rows = [{**row, "ablation": arguments.name} for row in figures(drawn)]
        file.writelines(json.dumps(row) + "\n" for row in rows)


def changed(variants: Variants) -> list[tuple[str, Mapping[str, Any]]]:
    """All variants, the demo as it is first."""
    return [(AS_IT_IS, {}), *variants.items()]


def draw(overrides: Mapping[str, Any]) -> Sets:
    """Prompt set -> [P, N], whether all is right in the candidates in CLIP's order.

    Of a pipeline that is run unless it has been; where its networks are there already, only what is drawn with them is made.
    """
    config = preset("demo", dict(overrides))
    layout = Layout(Path(config.paths.data_root).expanduser())
    if (account := finished_pipeline(layout, config)) is not None:
        made, judged = (account["results"][job] for job in ("generate_images", "evaluate"))
    elif (networks := find_networks(config)) is not None:
        asked = write_prompts(layout, scene_prompts(config.source, config.evaluate.num_prompts))
        made = run_job("generate_images", config, {**networks, **asked})
        judged = run_job("evaluate", config, {"generations": made["generations"], "generations_run": made["run_id"], **asked})
    else:
        with prefect_flows(config) as run:
            account = run("run_pipeline", config)
        made, judged = (account["results"][job] for job in ("generate_images", "evaluate"))
    return sorted_by_rank(layout.root / made["generations"], layout.root / judged["evaluations"])


def find_networks(config: Config) -> dict[str, str] | None:
    """The networks that were trained with these settings and this seed; None while one of them is missing."""
    try:
        return inputs_of("generate_images", config)
    except ValueError:
        return None


def sizes_of(sets: Sets) -> list[int]:
    """The N of "best of N" that there are candidates for."""
    most = min(right.shape[1] for right in sets.values())
    return [n for n in GROUP_SIZES if n <= most]


def mean_over_seeds(runs: list[Sets], prompt_set: str, n: int) -> NDArray[np.float64]:
    """The expected share right of CLIP's best of n, for each prompt [P]."""
    means: NDArray[np.float64] = np.mean([expected_best(sets[prompt_set], n) for sets in runs], axis=0)
    return means


def figures(drawn: Mapping[str, list[Sets]]) -> list[dict[str, Any]]:
    """A row for each variant, prompt set and n: the share right, its interval over prompts, its spread over seeds, and the difference to
    the demo as it is, prompt by prompt, with its interval."""
    rows = []
    plain = drawn[AS_IT_IS]
    for name, runs in drawn.items():
        for prompt_set in runs[0]:
            for n in sizes_of(runs[0]):
                ours = mean_over_seeds(runs, prompt_set, n)
                value, low, high, _ = share_estimate(ours)
                by_seed = [float(expected_best(sets[prompt_set], n).mean()) for sets in runs]
                row = {
                    "variant": name,
                    "prompt_set": prompt_set,
                    "best_of": n,
                    "right": value,
                    "low": low,
                    "high": high,
                    "by_seed": by_seed,
                }
                if name != AS_IT_IS:
                    row["gain"], row["gain_low"], row["gain_high"] = bootstrap_interval(ours - mean_over_seeds(plain, prompt_set, n))
                rows.append(row)
    return rows


def print_table(drawn: Mapping[str, list[Sets]]) -> None:
    """Markdown."""
    sizes = sizes_of(drawn[AS_IT_IS][0])
    print(f"| variant | prompts | {' | '.join(f'best of {n}' for n in sizes)} | difference at 1 | at {sizes[-1]} |")
    print("| --- " * (len(sizes) + 4) + "|")
    rows = figures(drawn)
    for name, runs in drawn.items():
        for prompt_set in runs[0]:
            own = {row["best_of"]: row for row in rows if (row["variant"], row["prompt_set"]) == (name, prompt_set)}
            shares = [f"{own[n]['right']:.3f} [{own[n]['low']:.3f}, {own[n]['high']:.3f}]" for n in sizes]
            gains = [
                f"{row['gain']:+.3f} [{row['gain_low']:+.3f}, {row['gain_high']:+.3f}]" if "gain" in (row := own[n]) else ""
                for n in (1, sizes[-1])
            ]
            print(f"| {name} | {prompt_set.replace('_', ' ')} | {' | '.join([*shares, *gains])} |")


if __name__ == "__main__":
    main()
