"""`multiverse.structure.flatten` for a stream: text and tags in reading order in, flattened text out.

Total: of damaged structure, tags go and text stays, but for what stands in a goal or a conclusion.
"""

import re

LEAD_IN = "Let's think in parallel."
_MAY_GO = f"\n{LEAD_IN}\n"
_LEAD_IN_END = re.compile(rf"(?:\A|\n){re.escape(LEAD_IN)}\n?\Z")
_NUMBER = re.compile(r"\d+(?:\.\d+)*: ?")
_NUMBER_SO_FAR = re.compile(r"[\d.]*:?")
_SILENT = {"<Goal>": "</Goal>", "<Conclusion>": "</Conclusion>"}


class FlatText:
    """Feed it with ``text`` and ``tag`` in their order; what both and ``finish`` return is the flattened text."""

    def __init__(self) -> None:
        self._held = ""
        self._fresh = True  # nothing has been sent since the last tag
        self._after_tag = False  # a line break that comes now belongs to the tag
        self._path_starts = False  # a number that comes now is the path's
        self._silent_until = ""
        self._depth: list[str] = []  # "block" where only white space stands, "path" inside its paths

    def text(self, text: str) -> str:
        if not text or self._silent_until or self._depth[-1:] == ["block"]:
            return ""
        self._held += text
        if self._after_tag:
            self._held = self._held.removeprefix("\n")
            self._after_tag = False
        if not self._held:
            return ""
        if self._path_starts:
            if _NUMBER_SO_FAR.fullmatch(self._held):
                return ""
            self._held = _NUMBER.sub("", self._held, count=1) if _NUMBER.match(self._held) else self._held
            self._path_starts = False
        return self._send(_certain(self._held, self._fresh))

    def tag(self, tag: str) -> str:
        if self._silent_until:
            if tag == self._silent_until:
                self._silent_until = ""
                self._after_tag = True
            return ""
        text = self._before(tag)
        if tag in _SILENT and self._depth[-1:] == ["block"]:
            self._silent_until = _SILENT[tag]
        elif tag == "<Parallel>":
            self._depth.append("block")
        elif tag == "<Path>" and self._depth[-1:] == ["block"]:
            self._depth.append("path")
            self._path_starts = True
        elif (tag == "</Path>" and self._depth[-1:] == ["path"]) or (
            tag == "</Parallel>" and self._depth[-1:] == ["block"]
        ):
            self._depth.pop()
        self._fresh = self._after_tag = True
        return text

    def finish(self) -> str:
        text, self._held = self._held, ""
        return text

    def _before(self, tag: str) -> str:
        """What is held back, less the line break that belongs to ``tag`` and the line that leads in to a block."""
        text, self._held = self._held, ""
        if self._path_starts:
            text = _NUMBER.sub("", text, count=1) if _NUMBER.match(text) else text
            self._path_starts = False
        if tag == "<Parallel>":
            text = _LEAD_IN_END.sub("", text)
        return text.removesuffix("\n")

    def _send(self, length: int) -> str:
        text, self._held = self._held[:length], self._held[length:]
        self._fresh = self._fresh and not text
        return text


def _certain(text: str, fresh: bool) -> int:
    """How much of ``text`` cannot be (the beginning of) a line break or lead-in that belongs to a tag."""
    if fresh and (LEAD_IN + "\n").startswith(text):
        return 0
    for length in range(min(len(_MAY_GO), len(text)), 0, -1):
        if text.endswith(_MAY_GO[:length]):
            return len(text) - length
    return len(text)
