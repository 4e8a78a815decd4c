"""One section of a schedule: the class of the plugin that it names, its parameters, its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from gatekit.errors import GatekitError, ScheduleError, UserError
from gatekit.lookup import Finder, MissingFile, check_file_name
from gatekit.registry import registry
from gatekit.validate import validated

if TYPE_CHECKING:
    from gatekit.schedule import Schedule, Use
    from gatekit.sigmas import SigmaGrid
    from gatekit.yamlsource import KeyPath, Source


@dataclass
class Sections:
    """Makes what sections of a schedule name.

    Attributes:
        schedule: The schedule.
        missing: Files that were not found; grows on the way.
        warnings: Sentences about what is allowed and hardly meant; grows on the way.
    """

    schedule: Schedule
    missing: list[MissingFile] = field(default_factory=list[MissingFile])
    warnings: list[str] = field(default_factory=list[str])

    @property
    def source(self) -> Source:
        """Where every value of the schedule stands."""
        return self.schedule.source

    def class_of(self, kind: str, use: Use, at: KeyPath) -> type[Any]:
        """The class of the plugin that ``use`` names."""
        source = self.source
        where = source.where((*at, "use") if (*at, "use") in source.values else at)
        return registry().get(kind, use.use, where=where)

    def made(self, kind: str, use: Use, at: KeyPath, *args: Any) -> Any:
        """An instance of a plugin's class with its parameters validated."""
        cls = self.class_of(kind, use, at)
        self._check_default(kind, cls, use, at)
        return cls(*args, self.params(cls, use, at))

    def _check_default(self, kind: str, cls: type[Any], use: Use, at: KeyPath) -> None:
        """Say that ``use`` is missing where a parameter is of a plugin that is not the default."""
        source = self.source
        if (*at, "use") in source.values:
            return
        for key in use.params:
            having = {
                n: c for n, c in registry().table(kind).items() if key in c.Params.model_fields
            }
            if having and cls.name not in having:
                # First what works with no other key.
                best = min(having, key=lambda n: (_asks(having[n]), len(n)))
                raise ScheduleError(
                    f"unknown key {key!r}",
                    where=source.where((*at, key), key=True),
                    remedy=f"add 'use', such as use: {best}",
                )

    def params(self, cls: type[Any], use: Use, at: KeyPath, extra: Sequence[str] = ()) -> Any:
        """The parameters of a plugin's class; ``extra``: keys there that are the core's own."""
        return validated(cls.Params, use.params, self.source, at, ("use", *extra))

    def grid(self, use: Use, at: KeyPath) -> SigmaGrid:
        """The grid of the run, or of a phase."""
        cls = self.class_of("grid", use, at)
        extra = ("steps", "allot") if at == ("sigmas",) else ()
        return cast("SigmaGrid", cls(self.params(cls, use, at, extra)))

    def found(self, name: str, at: KeyPath, files: Finder) -> Path | None:
        """Path of a file that the schedule names; None, and one more missing, where it is not."""
        source = self.source
        check_file_name(name, source.where(at))
        if source.in_file(at) and not self.schedule.outside:
            files.check_inside(name, source.where(at))
        path = files.find(name)
        if path is None:
            self.missing.append(files.missing(name, self.source.where(at)))
        return path


def _asks(cls: type[Any]) -> bool:
    """Whether a plugin has a parameter that must be given."""
    return any(field.is_required() for field in cls.Params.model_fields.values())


def relocated(exc: UserError, at: str) -> GatekitError:
    """The same error, with the place in the schedule before its own."""
    where = f"{at}: {exc.where}" if exc.where else at
    return type(exc)(exc.message, where=where, value=exc.value, remedy=exc.remedy)
