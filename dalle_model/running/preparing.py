"""Run directories without flows: from settings and artefacts to a folder that torchrun or sbatch starts on a machine with torch alone.

    python -m dalle_model.jobs prepare train_transformer --preset large --to /scratch/me/large
    cd /scratch/me/large/runs/train-transformer-0aa3b7c0da45 && sbatch --nodes=2 --gpus-per-node=8 start.sh

`dalle prepare` does the same and finds the inputs as a flow would, by the settings.
"""

import argparse
import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from dalle_datasets.prompts.read import read_prompts
from dalle_datasets.prompts.write import write_prompts
from dalle_datasets.store.layout import RUN_CONFIG, Layout, open_data_root
from dalle_model.config.presets import preset
from dalle_model.config.tree import Config
from dalle_model.running.registry import MADE_BY, find_job
from dalle_model.running.run_dir import prepare, read_result
from dalle_model.running.starts import start_inputs

START = "start.sh"

_HEAD = """\
#!/usr/bin/env bash
#SBATCH --job-name={run_id}
#SBATCH --ntasks-per-node=1
#SBATCH --output=%x-%j.log
# Start it in its own folder: `bash start.sh`, or `sbatch --nodes=2 --gpus-per-node=8 start.sh` with what else the cluster asks for.
# The Python at hand needs open-dalle[train]. The same command continues a run that was interrupted. PROCESSES: by default one per GPU.
set -euo pipefail
test -f config.json || {{ echo "start.sh: start it in its run directory, which holds config.json" >&2; exit 2; }}
processes=${{PROCESSES:-$(python -c 'import torch; print(max(1, torch.cuda.device_count()))')}}
"""

_START = {
    "one": 'exec python -m dalle_model.jobs {job} "$PWD"\n',
    "torchrun": """\
if [ -n "${{SLURM_JOB_NUM_NODES:-}}" ]; then
  first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | sed -n 1p)
  exec srun --ntasks-per-node=1 python -m torch.distributed.run --nnodes="$SLURM_JOB_NUM_NODES" --nproc-per-node="$processes" \\
    --rdzv-backend=c10d --rdzv-id="$SLURM_JOB_ID" --rdzv-endpoint="$first:29500" -m dalle_model.jobs {job} "$PWD"
fi
[ "$processes" -gt 1 ] || exec python -m dalle_model.jobs {job} "$PWD"
exec python -m torch.distributed.run --standalone --nproc-per-node="$processes" -m dalle_model.jobs {job} "$PWD"
""",
    "units": """\
if [ -n "${{SLURM_JOB_NUM_NODES:-}}" ] && [ -z "${{SLURM_STEP_ID:-}}" ]; then
  exec srun --ntasks-per-node=1 bash start.sh
fi
for ((i = 0; i < processes; i++)); do LOCAL_RANK=$i python -m dalle_model.jobs {job} "$PWD" & done
wait
test -f result.json
""",
}


def prepare_run(config: Config, job: str, given: Mapping[str, str], prompts: str = "", to: Path | None = None) -> Path:
    """A run directory with `start.sh`, under the data root or, with copies of all its inputs, under `to`. Returns the directory.

    `given` are inputs, kind -> path; what is missing must be there exactly once. Raises `ValueError` naming the input otherwise.
    """
    entry, root = find_job(job), open_data_root(config.paths.data_root).root
    if not entry.reads:
        raise ValueError(f"{job} is not prepared by hand: `dalle --help` lists the command that starts it")
    if unknown := sorted(set(given) - set(entry.reads)):
        raise ValueError(f"--input {unknown[0]}: {job} reads {', '.join(entry.reads)}; correct the name")
    if bool(prompts) != (job == "generate_images"):
        raise ValueError(f"--prompts FILE belongs to generate_images, which needs it (job: {job})")
    inputs: dict[str, str] = {}
    for kind in entry.reads:
        path = str(given.get(kind) or _only_one(root, kind))
        inputs |= {kind: path, f"{kind}_id": _identity(root, kind, path)}
    inputs |= start_inputs(Layout(root), job, config)
    if prompts:
        found = read_prompts(prompts)
        inputs |= write_prompts(Layout(root), found.prompts, found.dropped)
    return take_along(prepare(job, config, inputs), to)


def take_along(run_dir: Path, to: Path | None) -> Path:
    """A prepared run with its `start.sh`, where it is or copied with its inputs to the data root `to`. Returns its directory there."""
    saved: dict[str, Any] = json.loads((run_dir / RUN_CONFIG).read_text())
    if to is not None:
        source, target = run_dir.parent.parent, open_data_root(str(to)).root
        copied = [run_dir.relative_to(source), *(Path(path) for kind, path in saved["inputs"].items() if f"{kind}_id" in saved["inputs"])]
        copied += [Path(saved["inputs"][kind]) for kind in ("dropped_prompts",) if kind in saved["inputs"]]
        for path in copied:
            _copy(source / path, target / path)
        for kind in set(saved["inputs"]) & {"pairs", "training_set", *MADE_BY}:
            path, wanted = saved["inputs"][kind], saved["inputs"][f"{kind}_id"]
            if (found := _identity(target, kind, path)) != wanted:
                raise ValueError(f"{target / path} was there and is {kind} {found}, not {wanted}; delete it, or choose another folder")
        run_dir = target / copied[0]
    entry = find_job(saved["job"])
    script = (_HEAD + _START[entry.spread]).format(run_id=run_dir.name, job=entry.name)
    (run_dir / START).write_text(script)
    (run_dir / START).chmod(0o755)
    return run_dir


def command_line(arguments: Sequence[str]) -> Path:
    """`python -m dalle_model.jobs prepare …`. Raises `ValueError` for settings or inputs that are not right."""
    parser = argparse.ArgumentParser(prog="python -m dalle_model.jobs prepare", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("job")
    parser.add_argument("--preset", default="demo")
    parser.add_argument("--set", action="append", default=[], metavar="PATH=VALUE", help="change one setting; may be repeated")
    parser.add_argument("--input", action="append", default=[], metavar="KIND=PATH", help="an input, under the data root; may be repeated")
    parser.add_argument("--prompts", default="", metavar="FILE", help="for generate_images: .txt, .csv, .jsonl or .parquet")
    parser.add_argument("--to", type=Path, metavar="DIR", help="copy the run and its inputs there, to be carried to another machine")
    asked = parser.parse_args(arguments)
    config = preset(asked.preset, _pairs("--set", asked.set))
    run_dir = prepare_run(config, asked.job, _pairs("--input", asked.input), asked.prompts, asked.to)
    print(how_to_start(run_dir), file=sys.stderr)
    return run_dir


def how_to_start(run_dir: Path) -> str:
    """What to type next."""
    if read_result(run_dir) is not None:
        return "this run is finished: its result.json is there"
    return f"start it with: cd {run_dir} && bash {START}    (or sbatch {START})"


def _pairs(option: str, texts: Sequence[str]) -> dict[str, str]:
    pairs = dict(text.partition("=")[::2] for text in texts)
    if wrong := [text for text in texts if "=" not in text]:
        raise ValueError(f"{option} {wrong[0]}: needs the form NAME=VALUE")
    return pairs


def _only_one(root: Path, kind: str) -> str:
    """The path of the only artefact of a kind under the data root."""
    if kind in ("training_set", "pairs"):
        found = sorted(str(path.parent.relative_to(root)) for path in root.glob(f"{kind.rstrip('s')}s/*/manifest.json"))
    else:
        job, key = MADE_BY[kind]
        results = (read_result(path.parent) or {} for path in sorted(root.glob(f"runs/{job.replace('_', '-')}-*/result.json")))
        found = sorted({str(result[key]) for result in results if result.get(key)})
    if len(found) != 1:
        seen = f"there are {len(found)}: {', '.join(found)}" if found else "there is none"
        raise ValueError(f"input {kind}: {seen} under {root}; say which with --input {kind}=PATH")
    return found[0]


def _identity(root: Path, kind: str, path: str) -> str:
    """The id that an artefact has written down itself."""
    file = root / path / ("manifest.json" if kind in ("training_set", "pairs") else "config.json")
    try:
        about = json.loads(file.read_text())
        return str(about["result"]["pairs_id"] if kind == "pairs" else about["training_set_id" if kind == "training_set" else "id"])
    except (OSError, KeyError, ValueError) as error:
        raise ValueError(f"--input {kind}={path}: {file} is not readable as that of a {kind} ({error}); correct the path") from None


def _copy(source: Path, target: Path) -> None:
    """Whole or not at all; what is there stays, for a folder's name says what is in it."""
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    partial = target.with_name(target.name + ".partial")
    if source.is_dir():
        shutil.rmtree(partial, ignore_errors=True)
        shutil.copytree(source, partial)
    else:
        shutil.copyfile(source, partial)
    partial.rename(target)
