"""Settings of trainings that exclude each other."""

import pytest

from dalle_model.config.presets import preset


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"sharding": "half"}, r"train_transformer.sharding: 'half' is not one of 'replicated', 'full', 'hybrid'"),
        ({"shard_group": 8}, r"shard_group=8 is the number of processes that share one copy in sharding=hybrid; set both"),
        (
            {"powersgd_rank": 4, "sharding": "full"},
            r"powersgd_rank=4 compresses what replicated processes exchange, .*; set powersgd_rank=0",
        ),
        ({"powersgd_rank": 4, "precision": "fp16"}, r"powersgd_rank=4 keeps what it left out .* set precision=bf16 or powersgd_rank=0"),
        ({"powersgd_start_step": 1}, r"powersgd_start_step=1 at least 2"),
    ],
)
def test_settings_that_do_not_go_together_are_refused(settings: dict[str, object], told: str) -> None:
    with pytest.raises(ValueError, match=told):
        preset("demo", {f"train_transformer.{name}": value for name, value in settings.items()})
