"""Settings of the dVAE's training and of tokenising that cannot work are refused with a remedy."""

import pytest

from dalle_model.config.presets import preset


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ({"train_dvae.gumbel_temperature_end": 0.0}, r"train_dvae\.gumbel_temperature_end=0\.0 must be positive"),
        ({"train_dvae.random_flip": True}, r"train_dvae\.random_flip=true is part of .* train_dvae\.random_crop=false turns off; set both"),
        ({"train_dvae.kl_weight": -1.0}, r"train_dvae\.kl_weight=-1\.0 and train_dvae\.decode_threads=0 must be at least 0"),
        ({"tokenize_images.random_crops": -1}, r"tokenize_images\.random_crops=-1 must be in \[0, 30,000\]"),
        ({"tokenize_images.decode_threads": -1}, r"tokenize_images\.decode_threads=-1 must be in \[0, 10,000\]"),
    ],
)  # fmt: skip
def test_a_setting_that_cannot_work_is_refused(overrides, message):
    with pytest.raises(ValueError, match=message):
        preset("demo", overrides)
