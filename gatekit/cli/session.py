"""One run at the terminal: progress, Ctrl-C, and what is said at the end."""

from __future__ import annotations

import signal
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from shlex import join
from typing import TYPE_CHECKING, Any

from gatekit.errors import Cancelled

if TYPE_CHECKING:
    from gatekit.family import Inputs
    from gatekit.plan import Plan
    from gatekit.result import Result
    from gatekit.state import Record
    from gatekit.target import Target


@dataclass
class Session:
    """Runs a plan and tells the person at the terminal about it.

    Attributes:
        plan: What to run.
        inputs: From what.
        out: What is written.
        run_dir: The run folder, where it is not ``OUT.run``.
        resume: Run folder of the run to go on with.
        weights: Hashes that an earlier run had, by file name.
        force: Whether a run that was another one is gone on with.
        models_dir: Where its weights were looked for, for the line that tells how to go on.
    """

    plan: Plan
    inputs: Inputs
    out: Target
    run_dir: Path | None = None
    resume: Path | None = None
    weights: dict[str, str] | None = None
    force: bool = False
    models_dir: Sequence[Path] = ()
    _stop: bool = False
    _stepping: bool = False
    _gone_on: bool = False
    _last: Record | None = None

    @property
    def folder(self) -> Path:
        """The run folder."""
        return self.run_dir or self.resume or self.out.run_dir

    def run(self) -> None:
        """Make the video; print its path. Raises what ``gatekit.run`` raises."""
        from gatekit.cli.progress import shown
        from gatekit.cli.said import said
        from gatekit.execute import run
        from gatekit.pluginlimit import LEFT_OUT
        from gatekit.registry import registry

        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, self._interrupted)
        for warning in self.plan.warnings:
            self._say(f"warning: {warning}")
        for plugin in registry().broken.values():
            if plugin.error == LEFT_OUT:
                continue
            self._say(f"warning: plugin {plugin} was not loaded: {plugin.error}")
        self._find()
        try:
            with said(), shown(self.plan, self, self._done()) as bars:
                result = run(
                    self.plan,
                    self.inputs,
                    out=self.out,
                    run_dir=self.folder,
                    observers=(self._observe,),
                    progress=bars,
                    resume=self.resume,
                    force=self.force,
                )
        except (Cancelled, KeyboardInterrupt):
            raise Cancelled(f"interrupted{self._at()}; {self._how_to_resume()}") from None
        finally:
            signal.signal(signal.SIGINT, before)
        self._compare(result)
        print(self.out.first(self.plan.video.frames))

    def _find(self) -> None:
        """Go on with what an interrupted run of the same plan left in this folder."""
        from gatekit.runfolder import interrupted

        if self.resume is not None:
            return
        found, other = interrupted(self.folder, self.plan, self.inputs)
        if found is not None:
            self.resume = self.folder
            anew = f"remove {self.folder} to start anew"
            self._say(f"this run was interrupted after step {found.step}; going on; {anew}")
        elif other is not None:
            self._say(f"warning: the unfinished run in {self.folder} is given up, as {other}")

    def _done(self) -> dict[str, int]:
        """Steps that the run to go on with took, by phase."""
        from gatekit.checkpoint import read_checkpoint
        from gatekit.errors import InputError
        from gatekit.runfolder import CHECKPOINT

        if self.resume is None:
            return {}
        try:
            records = read_checkpoint(self.resume / CHECKPOINT).records
        except InputError:  # the run itself will say so
            return {}
        return Counter(record.phase for record in records)

    def stepping(self, phase: str | None) -> None:
        """Told by the progress whether steps are being taken, which end soon."""
        if phase is not None and self.resume is not None and not self._gone_on:
            self._gone_on = True
            done = sum(self._done().values())
            self._say(f"going on with step {done + 1} of {self._steps()} (phase {phase})")
        self._stepping = phase is not None

    def _steps(self) -> str:
        return f"{'' if self.plan.exact else 'about '}{len(self.plan.table())}"

    def _at(self) -> str:
        """Behind which step this run stopped."""
        if self._last is None:
            return ""
        return f" after step {self._last.step + 1} of {self._steps()} (phase {self._last.phase})"

    def _interrupted(self, signum: int, frame: Any) -> None:
        if self._stop or not self._stepping:
            raise KeyboardInterrupt
        self._stop = True
        self._say("stopping after this step; Ctrl-C again stops at once")

    def _observe(self, state: Any, record: Record, denoised: Any) -> None:
        self._last = record
        if self._stop:
            raise Cancelled

    def _how_to_resume(self) -> str:
        from gatekit.runfolder import CHECKPOINT

        if (self.folder / CHECKPOINT).exists():
            words = ["gatekit", "run", "--resume", str(self.folder)]
            words += [word for place in self.models_dir for word in ("--models-dir", str(place))]
            return f"go on with: {join(words)}"
        return "no step was finished, so there is nothing to resume"

    def _compare(self, result: Result) -> None:
        """Say where a video that is made again had other weights."""
        from gatekit.provenance import by_name

        now = by_name(result.weights or {})
        for name, found in (self.weights or {}).items():
            if name in now and now[name] != found:
                self._say(f"warning: {name} is not the file that the first video was made with")

    @staticmethod
    def _say(text: str) -> None:
        from gatekit.saying import say

        say(text)
