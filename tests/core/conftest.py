import pytest
from hypothesis import settings

settings.register_profile("gatekit", deadline=None)  # no test asserts timing
settings.load_profile("gatekit")


@pytest.fixture(autouse=True, scope="session")
def _one_thread():
    """Two workers share two cores."""
    import torch

    torch.set_num_threads(1)
