"""Every error gatekit raises on purpose, and nothing else.

    GatekitError                exit 1
    |- UserError                exit 2: the user's input is wrong
    |  |- ScheduleError         a schedule file or an override
    |  |- InputError            prompt, image, seed, output path
    |  |- WeightsError          a weight file: missing, truncated, of another model
    |  `- PluginError           an unknown, broken or clashing plugin
    |- NumericsError            NaN or infinity in a prediction
    |- OutputError              the result could not be written (disk full, no permission)
    |  `- OutputPathError       exit 2: its place cannot be; also an InputError
    `- Cancelled                exit 130: an observer or Ctrl-C asked to stop

Each message says where, which value, and what to do: ``str(error)`` is
``where: message (got value); remedy``, fit for one line on a terminal.
"""

from __future__ import annotations

LONGEST = 200  # characters of a value that a message shows
LINE = 500  # characters of another exception's text


def shown(value: object) -> str:
    """``repr`` of a value, shortened in the middle; of a number too long to print, its length."""
    try:
        text = repr(value)
    except ValueError:  # Python prints no integer of more than 4,300 digits
        bits = value.bit_length() if isinstance(value, int) else 0
        return f"a number of {bits:,} bits" if bits else f"a {type(value).__name__}"
    half = LONGEST // 2
    return text if len(text) <= LONGEST else f"{text[:half]}...{text[-half:]}"


def one_line(exc: BaseException) -> str:
    """Any exception, ``ValueError: too large``; what its class says of it may be none, or raise."""
    try:
        lines = str(exc).strip().splitlines()
    except Exception:  # of a plugin's own class
        lines = ["its text cannot be told"]
    name = type(exc).__name__
    return f"{name}: {lines[0][:LINE]}" if lines else name


class GatekitError(Exception):
    """Base of the tree.

    Args:
        message: What is wrong, in one clause.
        where: Place, such as ``gated.yaml:14:18: phases[1].sampler.use``.
        value: The offending value, shown with ``repr``; None shows nothing.
        remedy: What to do instead, in one clause.
    """

    exit_code = 1

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        value: object = None,
        remedy: str | None = None,
    ) -> None:
        self.message, self.where, self.value, self.remedy = message, where, value, remedy
        text = f"{where}: {message}" if where else message
        if value is not None:
            text += f" (got {shown(value)})"
        if remedy:
            text += f"; {remedy}"
        super().__init__(text)


class UserError(GatekitError):
    """The user's input is wrong; the command line exits with 2."""

    exit_code = 2


class ScheduleError(UserError):
    """A schedule file, an override, or what they ask for.

    Args:
        key: Raised by a plugin, which knows no places: the key below the section it checks, such
            as ``("width",)``. The plan adds the place.
    """

    def __init__(
        self,
        message: str,
        *,
        where: str | None = None,
        value: object = None,
        remedy: str | None = None,
        key: tuple[str | int, ...] = (),
    ) -> None:
        self.key = key
        super().__init__(message, where=where, value=value, remedy=remedy)


class InputError(UserError):
    """A prompt, an image, a seed, an output path, or an argument of the Python API."""


class WeightsError(UserError):
    """A weight file that is missing, damaged, or of another model."""


class PluginError(UserError):
    """A plugin that is unknown, fails to load, or clashes with another."""


class NumericsError(GatekitError):
    """A model predicted NaN or infinity, or a sampler made it."""


class OutputError(GatekitError):
    """The result could not be written; nothing is left under the final name."""


class OutputPathError(OutputError, InputError):
    """There is no such place to write to: a missing folder, a file in its way; exit 2."""


class Cancelled(GatekitError):  # noqa: N818  (an event, not a fault)
    """Raised by an observer, or on Ctrl-C, to stop a run after the step in hand."""

    exit_code = 130

    def __init__(self, message: str = "cancelled") -> None:
        super().__init__(message)
