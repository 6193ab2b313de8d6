"""A search of two options."""

import pytest

RANGES = ("optim.lr=tag(log,interval(0.001,0.03))", "data.batch_size=16,32")


@pytest.fixture(scope="session")
def words(small):
    """A search of two options, in this process."""
    fixed = ("isolate=false", "aug=off", "trainer.max_epochs=1", "optim=adam", "optim.weight_decay=0")
    raw = ("model.mean=0", "model.std=1")  # after one epoch, trials then have different scores
    return ("-m", "hparams=optuna", *fixed, *raw, *small, *RANGES)
