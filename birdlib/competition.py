"""A Kaggle competition's data, wherever one is: ``kaggle:birdclef-2024`` in place of a data folder.

kagglehub brings them: it downloads them once into its cache, and on Kaggle it attaches them to the notebook.
"""

from __future__ import annotations

from pathlib import Path

PREFIX = "kaggle:"
BY_HAND = "or download the data by hand, and give the folder"


class CompetitionError(RuntimeError):
    """A competition's data cannot be had: why, and what to do."""


def folder(place: str | Path) -> Path:
    """A data folder as it is; for ``kaggle:NAME``, the folder that holds the data of the competition NAME.

    Raises
    ------
    CompetitionError
        if kagglehub is not installed, does not know who asks, may not hand the data out (the competition's rules have
        not been accepted), or does not find or reach them.
    """
    text = str(place)
    return download(text.removeprefix(PREFIX)) if text.startswith(PREFIX) else Path(place)


def download(name: str) -> Path:
    """The folder with the data of the competition `name` ("birdclef-2024"), downloaded if need be; see `folder`."""
    try:
        import kagglehub
    except ImportError:
        raise CompetitionError(f"{PREFIX}{name} needs kagglehub: pip install kagglehub, {BY_HAND}") from None
    try:
        return Path(kagglehub.competition_download(name))
    except Exception as error:  # kagglehub's own, requests', and what its cache's disk has to say
        raise CompetitionError(f"the data of the competition {name}: {_reason(error, name)}, {BY_HAND}") from error


def _reason(error: Exception, name: str) -> str:
    status = getattr(getattr(error, "response", None), "status_code", None)
    page = f"https://www.kaggle.com/competitions/{name}"
    if status == 403:
        return (
            f"Kaggle refuses them to this account: accept the competition's rules once, at {page}/rules (Late "
            "Submission or Join Competition), and run this again"
        )
    if status == 401 or type(error).__name__ == "UnauthenticatedError":
        return (
            "Kaggle does not know who asks: make an API token at https://www.kaggle.com/settings/api and put it into "
            "KAGGLE_API_TOKEN (on Colab a secret of that name, with access for this notebook)"
        )
    if status == 404:
        return f"Kaggle has no such competition (is there a page {page}?)"
    return f"kagglehub says: {' '.join(str(error).split()) or type(error).__name__}"
