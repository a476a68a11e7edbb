"""Does reranking lift, and which sampler settings help? `python benchmarks/bench_quality.py DATA_ROOT [--rows TEXT] [--seeds 2]`.

DATA_ROOT is a copy of a finished demo's. Every row is the job `generate_images` with one setting changed, judged by the job `evaluate`, for
several seeds; both are ordinary runs of that data root, so what is there is not made again and SQL finds them afterwards (`dalle catalog
rebuild`, `dalle query agreement_by_settings`). Guidance needs a transformer that has seen pairs without captions: its rows train one first.
"""

import argparse
from collections.abc import Mapping
from contextlib import redirect_stdout
from dataclasses import dataclass
from io import StringIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from dalle_datasets.prompts.write import scene_prompts, write_prompts
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import read_parquet
from dalle_datasets.store.schemas import EVALUATIONS, GENERATIONS
from dalle_model.config.presets import preset
from dalle_model.running.run_dir import execute, prepare
from dalle_model.sampling.rerank import bootstrap_interval
from flows.runtime.upstream import inputs_of

PLAIN = "temperature 1"
DROPOUT = {"train_transformer.caption_dropout": 0.1}
TRAINING_SEED = "training seed"
ROWS: dict[str, dict[str, Any]] = {
    PLAIN: {},
    **{f"temperature {value}": {"sampling.temperature": value} for value in (0.25, 0.5, 0.75, 1.25, 1.5)},
    **{f"top-k {value}": {"sampling.top_k": value} for value in (8, 32, 128)},
    **{f"top-p {value}": {"sampling.top_p": value} for value in (0.5, 0.8, 0.9, 0.95)},
    "caption dropout, guidance 1": DROPOUT,
    **{f"caption dropout, guidance {value}": {**DROPOUT, "sampling.guidance": value} for value in (1.5, 2.0, 3.0, 5.0)},
    "trained with seed 1": {TRAINING_SEED: 1},
    "trained with seed 2": {TRAINING_SEED: 2},
}
SIZES = (1, 4, 8, 16, 32)
Sets = dict[str, NDArray[np.float64]]


@dataclass(frozen=True)
class Bench:
    """A finished demo and how it is asked."""

    root: Path
    num_prompts: int

    def right_by_rank(self, changes: Mapping[str, Any], seed: int) -> Sets:
        """Prompt set -> [P, N], whether everything is right in the candidate that CLIP ranks 1, 2, … N."""
        where = {"paths.data_root": str(self.root)}
        settings = {name: value for name, value in changes.items() if name != TRAINING_SEED}
        demo = preset("demo", where)
        asked = write_prompts(Layout(self.root), scene_prompts(demo.source, self.num_prompts))
        networks = inputs_of("generate_images", demo, **asked)
        if settings.keys() & DROPOUT.keys() or TRAINING_SEED in changes:
            training = preset(
                "demo", {**where, **{n: v for n, v in settings.items() if n in DROPOUT}, "seed": changes.get(TRAINING_SEED, 0)}
            )
            trained = run("train_transformer", training, inputs_of("train_transformer", demo))
            networks |= {"transformer": trained["checkpoint"], "transformer_id": trained["transformer_id"]}
        config = preset("demo", {**where, **settings, "seed": seed})
        made = run("generate_images", config, networks)
        judged = run("evaluate", config, {"generations": made["generations"], "generations_run": made["run_id"], **asked})
        return sorted_by_rank(self.root / made["generations"], self.root / judged["evaluations"])


def run(job: str, config: Any, inputs: Mapping[str, str]) -> dict[str, Any]:
    """A job's result, made in this process unless it is there; its progress is not shown."""
    with redirect_stdout(StringIO()):
        return execute(job, prepare(job, config, inputs))


def sorted_by_rank(generations: Path, evaluations: Path) -> Sets:
    """The verdicts of a run, candidates in CLIP's order."""
    verdicts = read_parquet(evaluations, EVALUATIONS, ["generation_id", "all_right"])
    right = dict(zip(verdicts["generation_id"].to_pylist(), verdicts["all_right"].to_pylist(), strict=True))
    rows = read_parquet(generations, GENERATIONS, ["generation_id", "prompt_id", "prompt_set", "rank"]).to_pylist()
    found: dict[str, dict[str, list[float]]] = {}
    for row in sorted(rows, key=lambda row: int(row["rank"])):
        found.setdefault(row["prompt_set"], {}).setdefault(row["prompt_id"], []).append(float(right[row["generation_id"]]))
    return {name: np.array([prompts[prompt_id] for prompt_id in sorted(prompts)]) for name, prompts in sorted(found.items())}


def expected_best(right: NDArray[np.float64], n: int) -> NDArray[np.float64]:
    """What the CLIP-best of n random ones of the N candidates is on average, for each prompt [P]; exact, no groups are drawn.

    The candidate of rank r is the best of C(N - r, n - 1) of the C(N, n) choices, so its weight falls by (N - r - n + 1) / (N - r).
    """
    num_candidates = right.shape[1]
    weights = np.zeros(num_candidates)
    weights[0] = n / num_candidates
    for rank in range(1, num_candidates - n + 1):
        weights[rank] = weights[rank - 1] * (num_candidates - rank - n + 1) / (num_candidates - rank)
    expected: NDArray[np.float64] = right @ weights
    return expected


def cells(runs: list[Sets], prompt_set: str) -> list[str]:
    """One row of the table: shares for each n, any, and the lift of the best of all with its 95% interval over prompts."""
    by_size = {n: np.mean([expected_best(sets[prompt_set], n) for sets in runs], axis=0) for n in SIZES}
    mean, low, high = bootstrap_interval(by_size[SIZES[-1]] - by_size[1])
    any_right = np.mean([sets[prompt_set].max(1) for sets in runs])
    return [*(f"{values.mean():.3f}" for values in by_size.values()), f"{any_right:.3f}", f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"]


def difference(runs: list[Sets], plain: list[Sets], prompt_set: str, n: int) -> str:
    """How much better than plain sampling of the same prompts with the same seeds, with its 95% interval over prompts."""
    ours, theirs = ([expected_best(sets[prompt_set], n) for sets in some] for some in (runs, plain))
    mean, low, high = bootstrap_interval(np.mean(ours, axis=0) - np.mean(theirs, axis=0))
    return f"{mean:+.3f} [{low:+.3f}, {high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data_root", type=Path)
    parser.add_argument("--rows", default="", help="only rows whose name contains this text")
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--num-prompts", type=int, default=64, help="prompts of each set")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    bench = Bench(arguments.data_root, arguments.num_prompts)
    plain = [bench.right_by_rank({}, seed) for seed in range(arguments.seeds)]
    against = "| against plain, n = 1 | against plain, n = 32 "
    print(f"| row | set | {' | '.join(f'n = {n}' for n in SIZES)} | any of 32 | lift at 32 {against}|")
    print("| --- " * (len(SIZES) + 6) + "|")
    for name, changes in ROWS.items():
        if arguments.rows not in name:
            continue
        runs = [bench.right_by_rank(changes, seed) for seed in range(arguments.seeds)]
        for prompt_set in runs[0]:
            changed = ["", ""] if name == PLAIN else [difference(runs, plain, prompt_set, n) for n in (1, SIZES[-1])]
            print(f"| {name} | {prompt_set} | {' | '.join([*cells(runs, prompt_set), *changed])} |", flush=True)


if __name__ == "__main__":
    main()
