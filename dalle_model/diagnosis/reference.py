"""Reference curves: what a healthy training of some size logged, and which settings are usual at that size.

The files in `reference_curves/` travel with the package. Each is one healthy training, thinned. They are made by

    python -m dalle_model.diagnosis.reference DATA_ROOT RUN [RUN ...] --name demo

from runs that `dalle diagnose` calls healthy; CONTRIBUTING.md says when. `dalle diagnose --against RUN` takes a run of one's own instead.
"""

import argparse
import bisect
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dalle_datasets.store.identity import identity
from dalle_datasets.store.layout import Layout
from dalle_datasets.store.parquet import atomic_path
from dalle_model.config.presets import PRESETS
from dalle_model.config.tree import Config
from dalle_model.diagnosis.evidence import Points, Training, find_run, read_training

FOLDER = Path(__file__).with_name("reference_curves")
SIZES = {"train_dvae": ("dvae",), "train_clip": ("clip",), "train_transformer": ("tokenizer", "dvae", "transformer")}
"""Job -> sections of the configuration that make up a network's size."""
WIDTHS = {"train_dvae": ("dvae", "hidden_width"), "train_clip": ("clip", "width"), "train_transformer": ("transformer", "d_model")}
"""Job -> the setting by which two networks are compared in size where no curve is stored."""
KEPT: Mapping[str, Mapping[str, Sequence[str]]] = {
    "train_dvae": {"train": ("loss", "gradient_norm"), "validation": ("loss", "psnr", "perplexity", "codes_used")},
    "train_clip": {"train": ("loss", "gradient_norm"), "validation": ("loss", "batch_accuracy")},
    "train_transformer": {"train": ("loss", "gradient_norm"), "validation": ("text_loss", "image_loss", "caption_gain")},
}
"""Job -> split -> curves that are compared."""
NUM_POINTS = 12


@dataclass(frozen=True, slots=True, kw_only=True)
class Reference:
    """A healthy training."""

    name: str
    job: str
    size: Mapping[str, Any]
    """The sections of `SIZES`."""
    data: Mapping[str, Any]
    """The source it learned from."""
    learning_rate: float
    batch_size: int
    curves: Mapping[str, Mapping[str, Points]]
    """split -> name -> points."""

    def at(self, name: str, step: int, split: str = "validation") -> float | None:
        """A curve's value at an update, between two points as on a straight line.

        None where there is no curve, outside it, and between its first two points: losses fall steeply there.
        """
        points = self.curves.get(split, {}).get(name, ())
        if not points or not points[0][0] <= step <= points[-1][0] or points[0][0] < step < points[min(1, len(points) - 1)][0]:
            return None
        i = bisect.bisect_left(points, step, key=lambda point: point[0])
        (x1, y1), (x0, y0) = points[i], points[max(0, i - 1)]
        return y1 if x1 == x0 else y0 + (y1 - y0) * (step - x0) / (x1 - x0)

    def is_of_same_data(self, config: Config) -> bool:
        """Whether it learned from the same source, so that losses can be compared and not only step sizes and gradients."""
        return _source(config) == dict(self.data)


def make_reference(training: Training, name: str) -> Reference:
    """A training as a reference."""
    curves = {split: {curve: _thin(training.points(curve, split)) for curve in names} for split, names in KEPT[training.job].items()}
    return Reference(
        name=name,
        job=training.job,
        size=_size(training.job, training.config),
        data=_source(training.config),
        learning_rate=training.settings.learning_rate,
        batch_size=training.settings.batch_size,
        curves={split: {curve: points for curve, points in found.items() if points} for split, found in curves.items()},
    )


def stored_reference(training: Training) -> Reference | None:
    """The stored training of the same size; None when there is none."""
    for path in sorted(FOLDER.glob("*.json")):
        saved = json.loads(path.read_text())
        if saved["job"] == training.job and saved["size"] == _size(training.job, training.config):
            return Reference(**saved)
    return None


def usual_learning_rate(training: Training, reference: Reference | None) -> tuple[float, str]:
    """A step size that is known to work at about this size, and whose it is: the reference's, else that of the preset nearest in width."""
    if reference is not None:
        return reference.learning_rate, reference.name
    section, setting = WIDTHS[training.job]
    width = getattr(getattr(training.config, section), setting)
    presets = {name: make() for name, make in PRESETS.items()}
    name = min(presets, key=lambda name: abs(math.log(getattr(getattr(presets[name], section), setting) / width)))
    return getattr(presets[name], training.job).learning_rate, f"preset {name}"


def _size(job: str, config: Config) -> dict[str, Any]:
    return {section: identity(getattr(config, section)) for section in SIZES[job]}


def _source(config: Config) -> dict[str, Any]:
    """What decides the pairs of a source; the demo's scenes are the same in every data root."""
    names = ("kind", "num_scenes", "scene_size") if config.source.kind == "emoji_scenes" else ("kind", "name", "inputs", "start_urls")
    return {name: value for name, value in identity(config.source).items() if name in names}


def _thin(points: Points) -> Points:
    """At most `NUM_POINTS` of the points, the first and the last among them, with four digits."""
    chosen = (
        sorted({round(i * (len(points) - 1) / (NUM_POINTS - 1)) for i in range(NUM_POINTS)})
        if len(points) > NUM_POINTS
        else range(len(points))
    )
    return [(points[i][0], float(f"{points[i][1]:.4g}")) for i in chosen]


def main() -> None:
    """Write the files of some runs."""
    parser = argparse.ArgumentParser(prog="python -m dalle_model.diagnosis.reference", description="Store healthy trainings as references.")
    parser.add_argument("data_root", type=Path)
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run ids, or their beginnings")
    parser.add_argument("--name", required=True, help="what the curves are called, e.g. a preset")
    arguments = parser.parse_args()
    layout = Layout(arguments.data_root.expanduser())
    for run in arguments.runs:
        reference = make_reference(read_training(layout, find_run(layout, run)), arguments.name)
        path = FOLDER / f"{arguments.name}-{reference.job.removeprefix('train_')}.json"
        with atomic_path(path) as partial:
            partial.write_text(json.dumps({name: getattr(reference, name) for name in Reference.__slots__}, sort_keys=True) + "\n")
        print(path)


if __name__ == "__main__":
    main()
