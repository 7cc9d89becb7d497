"""Where `repair` brings what it takes away from its name, so that nothing is deleted."""

from promptmill.dataset.listing import SET_ASIDE
from promptmill.producer.outputs.output import ObjectNotFound, Output


class Aside:
    """`set-aside/0001/` in an output, or the next free number, taken when the first object comes."""

    def __init__(self, output: Output) -> None:
        self._output = output
        self._folder = ""

    def take(self, name: str) -> str:
        """Move the object there; return its new name, '' where there is none. Raises OutputError."""
        if not self._folder:
            used = [int(child) for child in self._output.child(SET_ASIDE.rstrip("/")).children() if child.isdecimal()]
            self._folder = f"{SET_ASIDE}{max(used, default=0) + 1:04d}"
        to = f"{self._folder}/{name}"
        try:
            self._output.move(name, to)
        except ObjectNotFound:
            return ""
        return to
