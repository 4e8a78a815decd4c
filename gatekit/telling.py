"""Hooks called one plugin at a time, so that what fails in one is that one's alone."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Any

from gatekit.errors import GatekitError, PluginError, one_line

log = logging.getLogger("gatekit")
PREFIX = "gatekit_"


class Told:
    """Calls observing hooks and questions through a pluggy relay.

    An observer that raises is named and told nothing more in this run: it only watches, so the run
    goes on. What a plugin raises of gatekit's own tree, such as ``Cancelled``, it means. A plugin
    whose answer is wanted ends the run.

    Args:
        relay: A pluggy hook relay, or an object with functions of the hooks' names; None: nobody.
    """

    def __init__(self, relay: Any) -> None:
        self.relay = relay
        self._silenced: set[str] = set()

    def tell(self, event: str, arguments: dict[str, Any]) -> None:
        """Call the observing hook ``gatekit_<event>`` of every plugin."""
        for name, exc in self.failures(event, arguments):
            self._silenced.add(name)
            log.warning(
                "plugin %s failed in %s%s (%s); the run goes on, and tells it nothing more",
                *(name, PREFIX, event, one_line(exc)),
            )
            log.debug("its traceback", exc_info=exc)

    def failures(self, hook: str, arguments: dict[str, Any]) -> Iterator[tuple[str, BaseException]]:
        """Call ``gatekit_<hook>`` of every plugin; those that fail, with what they raised."""
        for name, call in self._calls(hook):
            if name in self._silenced:
                continue
            try:
                call(arguments)
            except GatekitError:
                raise
            except (Exception, SystemExit) as exc:  # sys.exit is no plugin's to call
                yield name, exc

    def ask(self, question: str, arguments: dict[str, Any]) -> Any:
        """The first answer of hook ``gatekit_<question>`` that is not None.

        Raises:
            PluginError: A plugin failed.
        """
        for name, call in self._calls(question):
            try:
                answer = call(arguments)
            except GatekitError:
                raise
            except (Exception, SystemExit) as exc:
                raise PluginError(
                    f"plugin {name} failed in {PREFIX}{question}: {one_line(exc)}",
                    remedy="take it out of this environment, or report it to who made it",
                ) from exc
            if answer is not None:
                return answer
        return None

    def _calls(self, hook: str) -> Iterator[tuple[str, Callable[[dict[str, Any]], Any]]]:
        """(plugin's name, its function), the plugin registered last first, as pluggy does."""
        caller = getattr(self.relay, f"{PREFIX}{hook}", None)
        if caller is None:
            return
        if not hasattr(caller, "get_hookimpls"):
            yield "observer", lambda arguments: caller(**arguments)
            return
        for impl in reversed(caller.get_hookimpls()):
            names, function = impl.argnames, impl.function
            yield (
                str(impl.plugin_name),
                lambda arguments, f=function, n=names: f(*[arguments[name] for name in n]),
            )
