"""Pure: what is sent to the engine. The same prompts in each run, and no two of them alike."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from gpud.models.model import EngineKind, ModelKind

# Plain words that common tokenizers take for one or two tokens each.
_WORDS = (
    "time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world",
    "school", "state", "family", "student", "group", "country", "problem", "hand", "part",
    "place", "case", "week", "company", "system", "program", "question", "work", "government",
    "number", "night", "point", "home", "water", "room", "mother", "area", "money", "story",
    "fact", "month", "lot", "right", "study", "book", "eye", "job", "word", "business", "issue",
    "side", "kind", "head", "house", "service", "friend", "father", "power", "hour", "game",
    "line", "end", "member", "law", "car", "city", "community", "name", "president", "team",
    "minute", "idea", "kid", "body", "information", "back", "parent", "face", "others", "level",
    "office", "door", "health", "person", "art", "war", "history", "party", "result", "change",
    "morning", "reason", "research", "girl", "guy", "moment", "air", "teacher", "force",
    "education",
)  # fmt: skip
# What a first guess takes for a word's tokens.
_FIRST_TOKENS_PER_WORD = 1.3
# A prompt is long enough when it is this near; the engine's own count is what is told.
_TOLERANCE = 0.01


@dataclass(frozen=True, slots=True, kw_only=True)
class Dialect:
    """How one instance is spoken to. `salt` keeps a run from what an earlier one left cached."""

    engine: EngineKind
    kind: ModelKind
    model: str  # as it is served
    salt: str
    pools: bool = True  # False: an embedding model that gives one vector for each token

    @property
    def streams(self) -> bool:
        """Whether its answer comes token by token."""
        return self.kind in {ModelKind.CHAT, ModelKind.COMPLETION}


def prompt(words: int, number: int) -> str:
    """A text of so many words: for one length all numbers have the same words in another order.

    So they have (nearly) the same number of tokens, and none begins as another does.
    """
    chosen = [_WORDS[at % len(_WORDS)] for at in range(words)]
    random.Random(number).shuffle(chosen)  # noqa: S311 — the same in each run is the point
    return " ".join(chosen)


def request(dialect: Dialect, text: str, output_tokens: int) -> tuple[str, dict[str, Any]]:
    """Path and body. OpenAI's form, and what the engine itself knows beyond that."""
    if dialect.kind is ModelKind.RERANK:
        query, _, document = text.partition(" ")
        documents = [document or query]
        return "/v1/rerank", {"model": dialect.model, "query": query, "documents": documents}
    if dialect.kind is ModelKind.EMBEDDING:
        if not dialect.pools and dialect.engine is EngineKind.LLAMA_CPP:
            # Its form of OpenAI's refuses models that pool nothing.
            return "/embedding", {"content": text}
        return "/v1/embeddings", {"model": dialect.model, "input": text}
    asked = {
        "model": dialect.model,
        "max_tokens": output_tokens,
        "temperature": 0,
        "stream": True,
        "stream_options": {"include_usage": True},
        **_own(dialect),
    }
    if dialect.kind is ModelKind.COMPLETION:
        return "/v1/completions", {"prompt": text, **asked}
    return "/v1/chat/completions", {"messages": [{"role": "user", "content": text}], **asked}


def _own(dialect: Dialect) -> dict[str, Any]:
    """As many tokens as asked, of a prompt that is computed: what is not OpenAI's."""
    if dialect.engine is EngineKind.LLAMA_CPP:
        return {"ignore_eos": True, "cache_prompt": False}
    if dialect.engine is EngineKind.VLLM:
        return {"ignore_eos": True, "cache_salt": dialect.salt}
    return {}


def first_guess(tokens: int) -> int:
    """Words for so many tokens, where nothing is known of the tokenizer."""
    return max(1, round(tokens / _FIRST_TOKENS_PER_WORD))


def next_guess(tokens: int, tried: dict[int, int]) -> int | None:
    """Words to try next for so many tokens; `tried`: tokens counted, by words, oldest first.

    None: one that was tried is near enough, or no other is left to try.
    """
    words, counted = list(tried.items())[-1]
    if abs(counted - tokens) <= max(1, tokens * _TOLERANCE):
        return None
    per_word = _tokens_per_word(tried)
    guess = max(1, words + round((tokens - counted) / per_word))
    return None if guess in tried else guess


def nearest(tokens: int, tried: dict[int, int]) -> int:
    """The words that came nearest."""
    return min(tried, key=lambda words: abs(tried[words] - tokens))


def _tokens_per_word(tried: dict[int, int]) -> float:
    """By the last two; a chat template's tokens are in both, and so fall out."""
    (before, counted_before), (words, counted) = [(0, 0), *tried.items()][-2:]
    slope = (counted - counted_before) / (words - before) if words != before else 0.0
    return slope if slope > 0 else 1.0
