"""A probe of servers that are only told about."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from gpud.engines.api_key import ApiKey
from gpud.engines.probe import Answer, ProbeFailed, ProbeFault


class FakeProbe:
    """Answers by path what `answers` holds: an Answer, or the fault to fail with.

    A path that is not there is refused. `asked` is every request: method, URL, body; `keys` what
    each showed.
    """

    def __init__(self, answers: Mapping[str, Answer | ProbeFault] | None = None) -> None:
        self.answers = dict(answers or {})
        self.asked: list[tuple[str, str, Mapping[str, Any] | None]] = []
        self.keys: list[str | None] = []

    async def get(self, url: str, timeout_seconds: float, key: ApiKey | None = None) -> Answer:
        return self._answer("GET", url, None, key)

    async def post_json(
        self, url: str, body: Mapping[str, Any], timeout_seconds: float, key: ApiKey | None = None
    ) -> Answer:
        return self._answer("POST", url, body, key)

    def _answer(
        self, method: str, url: str, body: Mapping[str, Any] | None, key: ApiKey | None
    ) -> Answer:
        self.asked.append((method, url, body))
        self.keys.append(key.reveal() if key is not None else None)
        path = "/" + url.split("/", 3)[3]
        answer = self.answers.get(path, ProbeFault.REFUSED)
        if isinstance(answer, ProbeFault):
            raise ProbeFailed(url=url, fault=answer, detail="as told")
        return answer


def said(status: int, body: Any) -> Answer:
    """An answer in JSON."""
    return Answer(status=status, body=msgspec.json.encode(body))
