"""The first sentence about a model says what it learned by heart."""

from flows.report.by_heart import describe_memory


def test_an_overfitted_model_is_called_one():
    said = describe_memory(
        {
            "learned_image_loss": 0.5, "validation_image_loss": 2.0, "by_heart": 0.75, "kept_step": 200, "num_steps": 700,
            "validation_unseen_share": 0.25, "validation_unseen_image_loss": 3.0,
        }
    )  # fmt: skip
    assert said.startswith("Learned by heart: 75%. An image token costs 0.50 nats for a picture it was trained on and 2.00 for one")
    assert "Validation was best at update 200 of 700, and those weights are kept." in said
    assert "25% of those kept apart have captions that training never saw: 3.00 nats." in said
    assert "It will mostly repeat what it saw" in said


def test_a_healthy_model_is_not_accused():
    said = describe_memory(
        {"learned_image_loss": 1.9, "validation_image_loss": 2.0, "kept_step": 9, "num_steps": 9, "validation_unseen_share": 1.0}
    )
    assert said.startswith("Learned by heart: 5%.")
    assert "repeat" not in said
    assert "best at update" not in said


def test_what_nobody_measured_is_not_claimed():
    assert describe_memory({"image_loss": 1.0}).startswith("Nobody knows how much was learned by heart")
    said = describe_memory({"image_loss": 1.0, "validation_image_loss": 2.0, "validation_unseen_share": 0.0})
    assert "nothing is known about new captions" in said
