"""The first sentence about a model says what it learned by heart, and `dalle diagnose` says the same."""

import pytest

from dalle_model.config.presets import preset
from dalle_model.diagnosis.evidence import Training
from dalle_model.diagnosis.rules import memory
from flows.report.by_heart import describe_memory


def made(learned, unseen, entropy=5.0, **more):
    return {"learned_image_loss": learned, "validation_image_loss": unseen, "image_entropy": entropy, **more}


def test_an_overfitted_model_is_called_one():
    said = describe_memory(
        made(0.5, 3.2, kept_step=200, num_steps=700, validation_unseen_share=0.25, validation_unseen_image_loss=3.0),
    )
    assert said.startswith("Learned by heart: 60%. An image token costs 0.50 nats for a picture it was trained on and 3.20 for one")
    assert "5.00 would be knowing only how often each token occurs" in said
    assert "Validation was best at update 200 of 700, and those weights are kept." in said
    assert "25% of those kept apart have captions that training never saw: 3.00 nats." in said
    assert "It will mostly repeat what it saw" in said


def test_a_healthy_model_is_not_accused():
    """One that is nearly sure of new pictures learned a rule, however much surer it is of those that it was trained on."""
    said = describe_memory(made(0.05, 0.42, kept_step=9, num_steps=9, validation_unseen_share=1.0))
    assert said.startswith("Learned by heart: 7%.")
    assert "repeat" not in said
    assert "best at update" not in said


@pytest.mark.parametrize(("learned", "unseen"), [(0.05, 0.42), (1.0, 1.6), (0.5, 3.2), (2.0, 1.9), (4.9, 4.95)])
def test_the_page_and_diagnose_never_contradict_each_other(learned, unseen):
    result = made(learned, unseen)
    curves = {("validation", "image_loss"): [(500, unseen)], ("train", "image_loss"): [(500, learned)]}
    training = Training(job="train_transformer", run_id="run", config=preset("demo"), state="done", result=result, curves=curves)
    check, said = memory(training, None), describe_memory(result)
    verdict = {"It will mostly repeat": "wrong", "That is more than usual": "look", "Nothing learned yet": "unknown"}
    assert check.verdict == next((verdict[words] for words in verdict if words in said), "healthy"), (said, check)
    assert check.verdict == "unknown" or said.split(": ")[1].split("%")[0] == check.reference.split("%")[0]


def test_what_nobody_measured_is_not_claimed():
    assert describe_memory({"image_loss": 1.0}).startswith("Nobody knows how much was learned by heart")
    said = describe_memory({"image_loss": 1.0, "validation_image_loss": 2.0, "validation_unseen_share": 0.0})
    assert "nothing is known about new captions" in said
    assert "%" not in said, "a training of an earlier edition did not keep the entropy"
