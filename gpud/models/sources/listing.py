"""Lists a repository of a model hub through huggingface_hub, as a program of its own.

So nothing of that library stays in the daemon, nor can it hold the daemon up. One JSON document
comes in (repository, revision), one goes out: the listing, or what was wrong.
"""

from __future__ import annotations

import json
import sys
from typing import Any

REQUEST_SECONDS = 20.0
# Errors of the library by name: its classes have moved between versions.
_REFUSALS = {
    "GatedRepoError": "gated",
    "RepositoryNotFoundError": "no_repository",
    "RevisionNotFoundError": "no_revision",
    "DisabledRepoError": "disabled",
    "HFValidationError": "no_repository",
}


def listing(asked: dict[str, str]) -> dict[str, Any]:
    """The commit, the token in use, and every file with its size and sums."""
    try:
        from huggingface_hub import HfApi, get_token, hf_hub_url
    except ImportError:
        return {"error": "missing"}
    try:
        info = HfApi().model_info(
            asked["repository"],
            revision=asked["revision"],
            timeout=REQUEST_SECONDS,
            files_metadata=True,
        )
    except Exception as error:  # noqa: BLE001 — whatever the library raises is told
        names = [kind.__name__ for kind in type(error).__mro__]
        kind = next((_REFUSALS[name] for name in names if name in _REFUSALS), "unreachable")
        return {"error": kind, "words": str(error).strip().partition("\n")[0][:300]}
    commit = info.sha or asked["revision"]
    files = [
        {
            "name": each.rfilename,
            "size_bytes": each.size,
            "git_sha1": each.blob_id or "",
            "sha256": each.lfs.sha256 if each.lfs is not None else "",
            "url": hf_hub_url(info.id, each.rfilename, revision=commit),
        }
        for each in info.siblings or ()
    ]
    return {"commit": commit, "token": get_token() or "", "files": files}


if __name__ == "__main__":
    json.dump(listing(json.load(sys.stdin)), sys.stdout)
