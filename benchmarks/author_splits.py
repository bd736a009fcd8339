"""TOFU's splits: 200 authors of 20 questions, the last 1, 5 or 10 % to be forgotten."""

from __future__ import annotations

from unierase.errors import UserError, invalid_choice

AUTHORS = 200
ROWS_PER_AUTHOR = 20
FORGET_ROWS = {"forget01": 40, "forget05": 200, "forget10": 400}
RETAIN_EVAL_ROWS = 400
"""TOFU scores retention on the first 400 rows (retain_perturbed)."""


def authors_in_play(split: str, authors: int | None, retain_authors: int | None) -> int:
    """How many authors there are: ``authors``, else those of the split and ``retain_authors``.

    Raises a UserError unless ``split`` exists and at least one author is left to retain.
    """
    if split not in FORGET_ROWS:
        raise invalid_choice("data.split", split, FORGET_ROWS)
    forget = FORGET_ROWS[split] // ROWS_PER_AUTHOR
    retained = AUTHORS - forget
    if authors is not None:
        if not forget < authors <= AUTHORS:
            raise UserError(
                f"data.authors={authors}: data.split={split} forgets {forget} authors; "
                f"choose {forget + 1} to {AUTHORS}"
            )
        return authors
    if retain_authors is None:
        return AUTHORS
    if not 0 < retain_authors <= retained:
        raise UserError(
            f"data.retain_authors={retain_authors}: data.split={split} leaves {retained} authors; "
            f"choose 1 to {retained}"
        )
    return forget + retain_authors


def chosen_authors(split: str, authors: int) -> list[int]:
    """Indices of the authors in play: the first ones, then those of the forget split."""
    forget = FORGET_ROWS[split] // ROWS_PER_AUTHOR
    return [*range(authors - forget), *range(AUTHORS - forget, AUTHORS)]


def restriction_notes(authors: int) -> tuple[str, ...]:
    """What the record says of a restriction."""
    if authors == AUTHORS:
        return ()
    return (f"{authors} of {AUTHORS} authors",)
