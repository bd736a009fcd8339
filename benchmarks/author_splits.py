"""TOFU's splits: 200 authors of 20 questions, the last 1, 5 or 10 % to be forgotten."""

from __future__ import annotations

from unierase.errors import UserError, invalid_choice

AUTHORS = 200
ROWS_PER_AUTHOR = 20
FORGET_ROWS = {"forget01": 40, "forget05": 200, "forget10": 400}
RETAIN_EVAL_ROWS = 400
"""TOFU scores retention on the first 400 rows (retain_perturbed)."""


def check_split(split: str, authors: int | None) -> None:
    """A UserError unless ``split`` exists and ``authors`` leaves at least one to retain."""
    if split not in FORGET_ROWS:
        raise invalid_choice("data.split", split, FORGET_ROWS)
    forget = FORGET_ROWS[split] // ROWS_PER_AUTHOR
    if authors is None:
        return
    if isinstance(authors, bool) or not isinstance(authors, int):
        raise UserError(f"data.authors={authors}: give a number, or null for all {AUTHORS}")
    if not forget < authors <= AUTHORS:
        raise UserError(
            f"data.authors={authors}: data.split={split} forgets {forget} authors; "
            f"choose {forget + 1} to {AUTHORS}"
        )


def chosen_authors(split: str, authors: int | None) -> list[int]:
    """Indices of the authors in play: the first ones, then those of the forget split."""
    if authors is None:
        return list(range(AUTHORS))
    forget = FORGET_ROWS[split] // ROWS_PER_AUTHOR
    return [*range(authors - forget), *range(AUTHORS - forget, AUTHORS)]


def restriction_notes(authors: int | None) -> tuple[str, ...]:
    """What the record says of a restriction."""
    if authors is None or authors == AUTHORS:
        return ()
    return (f"{authors} of {AUTHORS} authors",)
