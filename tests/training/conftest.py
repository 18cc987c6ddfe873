import pytest

import nextlat_viz as nlv

SMALL = {
    "steps": 12,
    "layers": 1,
    "dim": 16,
    "heads": 2,
    "mlp_dim": 16,
    "psi_width": 16,
    "batch_size": 8,
    "warmup_steps": 2,
    "decay_steps": 4,
    "validate_every": 4,
    "validation_episodes": 32,
    "save_every": 3,
    "snapshots": (2, 6),
}


@pytest.fixture
def small():
    """Hyperparameters of a run that takes a moment."""
    return dict(SMALL)


@pytest.fixture
def run(tmp_path, small):
    """A finished small run."""
    return nlv.train("rrxor", "nextlat", seed=3, out=tmp_path / "run", progress=False, **small)
