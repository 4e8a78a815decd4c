"""gatekit: samplers, phases and precision-gated schedules for video diffusion.

Everything a plugin or a script needs is exported here (``__init__.pyi`` lists it). Names
are imported on first use, so that the command line's help stays fast: torch takes seconds.
"""

import lazy_loader  # pyright: ignore[reportMissingTypeStubs]

__version__ = "0.1.0"
__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)  # pyright: ignore
