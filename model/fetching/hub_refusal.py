"""What the hub answers when it does not give a model, as sentences."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, constants, get_token
from huggingface_hub.errors import (
    GatedRepoError,
    HfHubHTTPError,
    LocalEntryNotFoundError,
    OfflineModeIsEnabled,
    RemoteEntryNotFoundError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from model.fetching.hub_name import HubName
from model.fetching.known_models import similar_names
from model.fetching.refusal import TABLE_HINT, ModelUnusableError
from model.fetching.space import no_space

# All that a call of the hub raises: OSError, and the error of the HTTP library beneath, which has another name in
# another version of huggingface_hub. RuntimeError is what its faster downloads raise.
HUB_ERRORS: tuple[type[BaseException], ...] = (*HfHubHTTPError.__bases__, RuntimeError)
CACHE_VARIABLE = "HF_HOME"
_TOKENS_PAGE = "settings/tokens"
_N_REVISIONS = 6


def hub_cache() -> Path:
    """The folder of the hub's cache on this machine; `CACHE_VARIABLE` names another."""
    return Path(constants.HF_HUB_CACHE)


def is_out_of_reach(error: BaseException) -> bool:
    """Whether the hub did not answer, or only that it is in trouble; then a copy in the cache will do."""
    status = _status(error)
    return status is None or status >= 500 or status == 429


def refusal(name: HubName, error: BaseException) -> ModelUnusableError:
    """Why the hub did not give a model, from what its client raised."""
    if _is_full(error):
        return ModelUnusableError(no_space(hub_cache(), name.repository, "more than is free", CACHE_VARIABLE))
    for kind, explain in _EXPLANATIONS:
        if isinstance(error, kind):
            return ModelUnusableError(explain(name, error))
    if _status(error) == 401 and get_token() is not None:
        return ModelUnusableError(
            f"the hub does not accept {_token()}, with which {name} was asked for; make a new token at "
            f"{_page(_TOKENS_PAGE)}, or go without: models that are public and not gated need none"
        )
    if _status(error) == 401:
        return ModelUnusableError(_explain_missing(name, error))
    if is_out_of_reach(error):
        return ModelUnusableError(why_not_in_cache(name, error))
    return ModelUnusableError(f"the hub does not give {name} ({_first_line(error)}); see {_page(name.repository)}")


def why_not_in_cache(name: HubName, error: BaseException) -> str:
    """Why a model cannot be had where the hub is not asked, or does not answer."""
    cache = f"the cache {hub_cache()} does not have all of {name}"
    if isinstance(error, OfflineModeIsEnabled) or constants.HF_HUB_OFFLINE:
        return (
            f"HF_HUB_OFFLINE is set and {cache}; unset it, fetch the model where there is a network "
            f"(hf download {name.repository}), or give a local copy in its place"
        )
    reason = _first_line(error.__cause__ if isinstance(error, LocalEntryNotFoundError) and error.__cause__ else error)
    return (
        f"the hub at {constants.ENDPOINT} does not answer ({reason}) and {cache}; try again when it does, or give "
        "a local copy in its place"
    )


def _explain_gated(name: HubName, error: BaseException) -> str:
    page = _page(name.repository)
    if get_token() is None:
        steps = f"accept its licence at {page} and set HF_TOKEN to a token of that account ({_page(_TOKENS_PAGE)})"
    else:
        steps = f"{_token()} has no access to it yet: accept its licence at {page} with the same account"
    return f"{name.repository} is gated; {steps}; `tagstream models` lists some that need no account"


def _explain_revision(name: HubName, error: BaseException) -> str:
    refs: Any
    try:
        refs = HfApi().list_repo_refs(name.repository)
        known = [ref.name for ref in (*refs.branches, *refs.tags)]
    except HUB_ERRORS:
        known = []
    shown = ", ".join(known[:_N_REVISIONS]) + (", ..." if len(known) > _N_REVISIONS else "")
    expected = f" or one of {shown}" if shown else ", a branch or a tag"
    return f"{name.repository} has no revision {name.revision}; expected a commit{expected}"


def _explain_missing(name: HubName, error: BaseException) -> str:
    near = similar_names(name.repository)
    hint = f" (near it: {', '.join(near)})" if near else ""
    if get_token() is None:
        known, private = "has no public model", "log in with HF_TOKEN if the model is private"
    else:
        known, private = "shows no model", f"see whether {_token()} may read it"
    return (
        f"there is no folder {name} here, and the hub {known} {name.repository}; check the name{hint}, or {private}; "
        f"{TABLE_HINT}"
    )


def _explain_file(name: HubName, error: BaseException) -> str:
    return f"{name} has not all files that are expected ({_first_line(error)}); see {_page(name.repository)}"


# The first that fits: a gated repository also counts as one that is not found.
_EXPLANATIONS = (
    (GatedRepoError, _explain_gated),
    (RevisionNotFoundError, _explain_revision),
    (RepositoryNotFoundError, _explain_missing),
    (RemoteEntryNotFoundError, _explain_file),
)


def _status(error: BaseException) -> int | None:
    return error.response.status_code if isinstance(error, HfHubHTTPError) else None


def _is_full(error: BaseException) -> bool:
    return (isinstance(error, OSError) and error.errno == errno.ENOSPC) or "No space left on device" in str(error)


def _token() -> str:
    return "the token in HF_TOKEN" if os.environ.get("HF_TOKEN") else "the token of `hf auth login`"


def _page(path: str) -> str:
    return f"{constants.ENDPOINT}/{path}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
