"""Paths of all artefacts under the data root, built here and nowhere else."""

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

RUN_CONFIG, RUN_RESULT, RUN_STATUS = "config.json", "result.json", "status"
"""Files of a run directory: what the job is to do, what it made (written last), and how far it is."""


@dataclass(frozen=True, slots=True)
class Layout:
    """Folders of one data root."""

    root: Path

    def source(self, source: str) -> Path:
        """Candidates of a source, and the drops of discovery."""
        return self.root / "sources" / source

    def images(self, source: str) -> Path:
        """Downloaded bytes of a source."""
        return self.root / "images" / source

    def measures(self, source: str) -> Path:
        """What the filters measured on the downloaded candidates of a source."""
        return self.root / "measures" / source

    def pairs(self, source: str) -> Path:
        """Usable pairs of a source."""
        return self.root / "pairs" / source

    def dropped(self, source: str) -> Path:
        """Dropped candidates of a source, with their reasons."""
        return self.root / "dropped" / source

    def collections(self, source: str) -> Path:
        """What became of every candidate of a source, one file for each time it was collected."""
        return self.root / "collections" / source

    def tokenizer(self, tokenizer_id: str) -> Path:
        """A BPE vocabulary."""
        return self.root / "tokenizers" / tokenizer_id

    def text_tokens(self, tokenizer_id: str) -> Path:
        """Text tokens of one tokenizer."""
        return self.root / "text_tokens" / f"tokenizer={tokenizer_id}"

    def image_tokens(self, dvae_id: str) -> Path:
        """Image tokens of one dVAE."""
        return self.root / "image_tokens" / f"dvae={dvae_id}"

    def clip_scores(self, clip_id: str) -> Path:
        """Scores of one CLIP."""
        return self.root / "clip_scores" / f"clip={clip_id}"

    def safety_scores(self, safety_id: str) -> Path:
        """Scores of one safety classifier."""
        return self.root / "safety_scores" / f"safety={safety_id}"

    def training_set(self, training_set_id: str) -> Path:
        """One exported training set."""
        return self.root / "training_sets" / training_set_id

    def networks(self, role: str) -> Path:
        """Every network of a role and which of them was current when, one JSON object a line."""
        return self.root / "networks" / f"{role}.jsonl"

    def prompts(self, prompts_id: str) -> Path:
        """Texts to make pictures for."""
        return self.root / "prompts" / f"{prompts_id}.parquet"

    def ballot(self, ballot_id: str) -> Path:
        """Pairs of pictures that people voted on, and their votes."""
        return self.root / "votes" / ballot_id

    @property
    def runs(self) -> Path:
        """The run directories of all jobs."""
        return self.root / "runs"

    def run(self, run_id: str) -> Path:
        """One job's run directory."""
        return self.runs / run_id

    def stage_times(self, execution: str) -> Path:
        """How long the stages of one execution of the pipeline took, one JSON object a line."""
        return self.root / "stage_times" / f"{execution}.jsonl"

    def pipeline(self, pipeline_id: str) -> Path:
        """What a finished pipeline with certain settings made."""
        return self.root / "pipelines" / f"{pipeline_id}.json"

    @property
    def settings(self) -> Path:
        """The settings that commands in this data root start from."""
        return self.root / "settings.toml"

    @property
    def kept(self) -> Path:
        """What `dalle catalog keep` was told, one JSON object a line."""
        return self.root / "kept.jsonl"

    @property
    def blocked(self) -> Path:
        """What must never be collected again, hashed, one JSON object a line."""
        return self.root / "blocked.jsonl"

    @property
    def forgotten(self) -> Path:
        """The records of requests to forget, one JSON file each."""
        return self.root / "forgotten"

    @property
    def backups(self) -> Path:
        """Where copies of this data root were made, one JSON object a line."""
        return self.root / "backups.jsonl"

    @property
    def catalog(self) -> Path:
        """The live DuckDB file: one writer at a time."""
        return self.root / "catalog" / "catalog.duckdb"

    @property
    def published_catalog(self) -> Path:
        """The readers' copy of the catalog."""
        return self.root / "catalog" / "published.duckdb"

    @property
    def report(self) -> Path:
        """The HTML gallery."""
        return self.root / "report" / "index.html"

    @property
    def collection_report(self) -> Path:
        """The report of what was collected."""
        return self.root / "report" / "collection.html"

    def relative(self, path: Path) -> str:
        """`path` relative to the root, as stored in files and tables. Folders of the root may be links to other disks."""
        whole, root = Path(os.path.abspath(path)), Path(os.path.abspath(self.root))  # noqa: PTH100 - keeps links
        if not whole.is_relative_to(root):  # one of them was named by way of a link
            whole, root = path.resolve(), self.root.resolve()
        return whole.relative_to(root).as_posix()


def open_data_root(data_root: str) -> Layout:
    """The layout of `data_root`, created if need be. Raises `ValueError` when it cannot be written."""
    root = _root_path(data_root)
    try:
        root.mkdir(parents=True, exist_ok=True)
        # Without a name that a worker beside us, on this machine or another, could have thought of too.
        with tempfile.TemporaryFile(dir=root):
            pass
    except OSError as error:
        raise ValueError(
            f"paths.data_root={data_root}: cannot be written ({error.strerror or error}); "
            "choose another folder with --set paths.data_root=… or DALLE_DATA_ROOT"
        ) from error
    return Layout(root)


def find_data_root(data_root: str) -> Layout:
    """The layout of a `data_root` that is only read, and may be read-only. Raises `ValueError` when there is none."""
    root = _root_path(data_root)
    if not root.is_dir():
        raise ValueError(f"{root} does not exist yet; `dalle demo` fills it, or say which data root with --set paths.data_root=…")
    return Layout(root)


def _root_path(data_root: str) -> Path:
    if "://" in data_root:
        raise ValueError(
            f"paths.data_root={data_root}: is an address, but a data root is a folder; "
            "mount the bucket, or keep a copy there with `dalle catalog backup`"
        )
    if "?" in str(Path(data_root).expanduser().absolute()):
        raise ValueError(f"paths.data_root={data_root}: the catalog cannot lie in a path with a question mark; choose another folder")
    return Path(data_root).expanduser()
