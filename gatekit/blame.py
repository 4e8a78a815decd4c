"""Whose exception it was: a sampler's or a strategy's own, or that of the model it asked."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from gatekit.errors import GatekitError, PluginError, one_line

if TYPE_CHECKING:
    from torch import Tensor

    from gatekit.stage import Engine, Stage
    from gatekit.state import State

T = TypeVar("T")


def blaming(what: str, plugin: Any, where: str, engine: Engine, call: Callable[[], T]) -> T:
    """What ``call`` returns, which runs code of a plugin.

    Raises:
        PluginError: It raised anything but an error of gatekit's tree; named, with the cause.
        GatekitError: Memory ran out.
    """
    try:
        return call()
    except GatekitError:
        raise
    except (Exception, SystemExit) as exc:  # sys.exit is no plugin's to call
        if engine.raised is not None and engine.raised in causes(exc):
            raise  # the model's, passed on
        if isinstance(exc, MemoryError) or type(exc).__name__ == "OutOfMemoryError":
            raise GatekitError(
                f"{what} {plugin.name!r} ran out of memory ({one_line(exc)})",
                where=where,
                remedy="leave it more with a lower memory.vram, or use a smaller video",
            ) from exc
        module = type(plugin).__module__
        raise PluginError(
            f"{what} {plugin.name!r} of {module} raised {one_line(exc)}",
            where=where,
            remedy=f"use another {what} there, or report it to who made it",
        ) from exc


def blaming_each(
    what: str, plugin: Any, where: str, engine: Engine, call: Callable[[], Iterable[T]]
) -> Iterator[T]:
    """What the iterable that ``call`` returns yields; as ``blaming``, whichever of both raises."""
    given = iter(blaming(what, plugin, where, engine, call))
    end: Any = object()
    while (one := blaming(what, plugin, where, engine, lambda: next(given, end))) is not end:
        yield one


def causes(exc: BaseException) -> list[BaseException]:
    """An exception and those that it was raised from or during."""
    found: list[BaseException] = []
    waiting: list[BaseException | None] = [exc]
    while waiting:
        one = waiting.pop()
        if one is not None and one not in found:
            found.append(one)
            waiting += [one.__cause__, one.__context__]
    return found


def check_result(stage: Stage, state: State, result: Any) -> None:
    """Raise PluginError unless a sampler returned a StepResult like the state."""
    x: Any = getattr(result, "x", None)
    if (found := _unlike(x, state.x)) is not None:
        raise PluginError(
            f"sampler {stage.sampler.name!r} must return a StepResult whose x has the shape "
            "and dtype of c.x",
            where=f"phase {stage.name}, sigma {state.sigma:.6g}",
            value=type(result).__name__ if x is None else found,
            remedy=f"give {tuple(state.x.shape)}, {state.x.dtype}; of a Linear its tensor()",
        )


def check_corrected(stage: Stage, where: str, state: State, x: Any) -> None:
    """Raise PluginError unless a sampler's ``correct`` returned an x like the state's."""
    if (found := _unlike(x, state.x)) is not None:
        raise PluginError(
            f"correct() of sampler {stage.sampler.name!r} must return x, with the shape and dtype "
            "of c.x",
            where=where,
            value=found,
            remedy=f"give {tuple(state.x.shape)}, {state.x.dtype}",
        )


def check_state(policy: Any, where: str, before: State, after: Any) -> None:
    """Raise PluginError unless a history policy returned a State whose x is like the one before."""
    other = type(after) is not type(before)
    found = type(after).__name__ if other else _unlike(after.x, before.x)
    if found is not None:
        raise PluginError(
            f"history policy {policy.name!r} must return the state it was given, changed at most",
            where=where,
            value=found,
            remedy=f"return replace(state, ...), x with {tuple(before.x.shape)}, {before.x.dtype}",
        )


def _unlike(x: Any, like: Tensor) -> Any:
    """None where x has the shape and dtype of ``like``; else what it has, or its type's name."""
    kind: Any = (getattr(x, "shape", None), getattr(x, "dtype", None))
    if kind == (like.shape, like.dtype):
        return None
    return type(x).__name__ if None in kind else (tuple(kind[0]), kind[1])
