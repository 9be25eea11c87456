"""What a terminal shows while a command works: log lines that scroll, and progress below them."""

import errno
import re
import sys
import time
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from rich.progress import Progress, Task, TaskID

_REFRESH = 0.1  # seconds between updates
_FACTS = re.compile(r"\] Iteration \d+.*, (loss|lr) = (\S+)$")


class Display:
    """Prints lines to stderr and, if that is a terminal, shows below them how far each kind of work is.

    Without a terminal there are the lines and nothing else; not `shown`, nothing at all. A context manager.
    """

    def __init__(self, *, shown: bool = True) -> None:
        self.progress = _progress() if shown and sys.stderr.isatty() else None
        self._tasks: dict[str, TaskID] = {}
        self._facts: dict[str, str] = {}
        self._due: dict[str, float] = {}
        self._gone = not shown

    def __enter__(self) -> Self:
        if self.progress:
            self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.progress:
            self.progress.stop()

    def show(self, line: str) -> None:
        """Print a line; where it is the training log's, keep the loss and the learning rate it tells in sight."""
        if self._gone:
            return
        try:
            if self.progress:
                from rich.text import Text

                if found := _FACTS.search(line):
                    self._facts[found[1]] = found[2]
                self.progress.console.print(Text(line), soft_wrap=True)
            else:
                print(line, file=sys.stderr, flush=True)
        except OSError as error:
            if error.errno != errno.EIO:
                raise
            self._gone = True  # the terminal was closed; work goes on, and the log has the lines

    def advance(self, what: str, done: int, total: int) -> None:
        """Show that `done` of `total` are done; may be called often."""
        now = time.perf_counter()
        if not self.progress or (now < self._due.get(what, 0.0) and done < total):
            return
        self._due[what] = now + _REFRESH
        if what not in self._tasks:
            self._tasks[what] = self.progress.add_task(what, total=total, facts="")
        task = self._tasks[what]
        if done < self._task(task).completed:
            self.progress.reset(task, total=total)
        facts = "  ".join(f"{name} {value}" for name, value in self._facts.items()) if what == "train" else ""
        self.progress.update(task, completed=done, total=total, facts=facts)

    def hide(self, what: str, line: str) -> None:
        """Show `what` no longer; without a terminal, print `line`."""
        if self.progress:
            self.progress.update(self._tasks[what], visible=False)
        else:
            self.show(line)

    def rename(self, what: str, text: str) -> None:
        """Show `text` in place of `what`; safe in a signal handler."""
        if self.progress and what in self._tasks:
            self._task(self._tasks[what]).description = text

    def _task(self, number: "TaskID") -> "Task":
        assert self.progress
        return next(task for task in self.progress.tasks if task.id == number)


def _progress() -> "Progress":
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, TextColumn, TimeRemainingColumn
    from rich.text import Text

    class Rate(ProgressColumn):
        def render(self, task: "Task") -> Text:
            return Text(f"{task.speed:.4g} it/s" if task.speed else "", style="progress.data.speed")

    return Progress(
        TextColumn("{task.description}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        Rate(),
        TimeRemainingColumn(compact=True),
        TextColumn("{task.fields[facts]}"),
        console=Console(stderr=True),
        expand=True,
    )
