"""All tests here have the real k-diffusion."""

from __future__ import annotations

import pytest


@pytest.fixture(autouse=True)
def installed(k_diffusion):
    """Nothing more."""
