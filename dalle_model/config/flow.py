"""How flows run the stages: where, and how many at a time. Nothing here changes what comes out."""

from dataclasses import dataclass

from dalle_datasets.ranges import check_ranges


@dataclass(frozen=True, kw_only=True, slots=True)
class FlowConfig:
    """Where jobs run."""

    pool: str = ""
    """Prefect work pool whose machines run trainings, tokenising, scoring and generating, e.g. `gpu`; they must see the data root
    under the same path. Empty runs every job beside its flow."""
    num_workers: int = 1
    """Workers of `pool` that share one job of tokenising, scoring or generating."""
    num_processes: int = 1
    """Processes of a job on its machine, one per GPU: under torchrun in trainings, side by side in tokenising, scoring and generating."""
    max_restarts: int = 2
    """How often a job that crashed is started again by itself: killed, told to end, or cut off. One that failed is not."""
    prompt_folder: str = "prompt_folder"
    """Folder whose files of prompts `draw_prompt_folder` draws; relative to the data root."""
    check_pairs: bool = True
    """Refuse pairs that were collected with other settings than these; false takes what lies there."""

    def __post_init__(self) -> None:
        check_ranges(self, num_workers=(1, 100_000), num_processes=(1, 100_000), max_restarts=(0, 1_000_000))
        if self.num_workers > 1 and not self.pool:
            raise ValueError(
                f"flow.num_workers={self.num_workers} are workers of a Prefect work pool; set flow.pool, e.g. gpu, "
                "or use flow.num_processes for several processes on this machine"
            )
