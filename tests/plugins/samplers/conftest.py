import pytest


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two workers share two cores."""
    import torch

    torch.set_num_threads(1)
