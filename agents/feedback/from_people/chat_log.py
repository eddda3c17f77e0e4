"""What people say of answers while they chat, in files that training reads as they are.

- `examples.jsonl`: answers that were liked or corrected, for `textenv sft`;
- `rankings.jsonl`: a correction before the answer that it corrects, and the answers of two policies
  side by side, for `textenv reward-model` and `textenv dpo`;
- `labels.jsonl`: every answer that was liked or disliked, as KTO learns from them.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from agents.feedback.rankings import Ranking, append_rankings
from agents.runs.record_files import append_records


class ChatLog:
    """Feedback on answers of one chat after the other, added to the files of a folder.

    Args:
        folder: It is made if it does not exist.
    """

    def __init__(self, folder: str | Path):
        self.folder = Path(folder)
        self.folder.mkdir(parents=True, exist_ok=True)

    def like(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """The last message, an answer, is good."""
        self._add("labels", self._label(messages, good=True))
        self._add("examples", {"messages": list(messages)})

    def dislike(self, messages: Sequence[Mapping[str, Any]]) -> None:
        """The last message is bad."""
        self._add("labels", self._label(messages, good=False))

    def correct(self, messages: Sequence[Mapping[str, Any]], correction: str) -> None:
        """The last message should have been `correction`."""
        asked, said = tuple(messages[:-1]), str(messages[-1]["content"])
        self._add("examples", {"messages": [*asked, {"role": "assistant", "content": correction}]})
        ranking = Ranking("", (correction, said), (1, 2), asked, labeller="chat")
        append_rankings(self.folder / "rankings.jsonl", [ranking])
        self.dislike(messages)

    def rank(
        self,
        asked: Sequence[Mapping[str, Any]],
        answers: Sequence[str],
        ranks: Sequence[int],
        sources: Sequence[str],
    ) -> None:
        """Two answers to the same messages, and which is better; see `Ranking`."""
        ranking = Ranking(
            "", tuple(answers), tuple(ranks), tuple(asked), tuple(sources), labeller="chat"
        )
        append_rankings(self.folder / "rankings.jsonl", [ranking])

    @staticmethod
    def _label(messages: Sequence[Mapping[str, Any]], *, good: bool) -> dict[str, Any]:
        return {"prompt": list(messages[:-1]), "completion": [messages[-1]], "label": good}

    def _add(self, name: str, record: Mapping[str, Any]) -> None:
        append_records(self.folder / f"{name}.jsonl", [record])
