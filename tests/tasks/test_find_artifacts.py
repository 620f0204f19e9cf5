import numpy as np

from apstream.tasks.find_artifacts import ArtifactConfig, find_artifacts


def test_a_spot_of_one_epoch_is_found():
    rng = np.random.default_rng(1)
    stack = rng.normal(0, 1, (5, 60, 60)).astype(np.float32)
    stack[2, 30:33, 30:33] += 20
    found = find_artifacts(stack, np.ones_like(stack), np.ones(stack.shape, bool), ArtifactConfig())
    assert found[2, 30:33, 30:33].all()
    assert found[[0, 1, 3, 4]].mean() < 1e-3
