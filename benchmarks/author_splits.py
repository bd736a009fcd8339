"""TOFU's splits: 200 authors of 20 questions, the last 1, 5 or 10 % to be forgotten."""

from __future__ import annotations

from dataclasses import dataclass

from unierase.errors import UserError, invalid_choice

AUTHORS = 200
ROWS_PER_AUTHOR = 20
FORGET_ROWS = {"forget01": 40, "forget05": 200, "forget10": 400}
RETAIN_EVAL_ROWS = 400
"""TOFU scores retention on the first 400 rows (retain_perturbed)."""


@dataclass(frozen=True)
class AuthorData:
    """The authors a benchmark in TOFU's schema is restricted to.

    authors: only this many of the 200 authors, those of the forget split among them.
    retain_authors: where ``authors`` is None, only this many besides those of the split.

    Raises a UserError unless ``split`` exists and at least one author is left to retain.
    """

    name: str
    split: str
    authors: int | None
    retain_authors: int | None

    def __post_init__(self) -> None:
        if self.split not in FORGET_ROWS:
            raise invalid_choice("data.split", self.split, FORGET_ROWS)
        forget = self._forget_authors
        retained = AUTHORS - forget
        if self.authors is not None:
            if not forget < self.authors <= AUTHORS:
                raise UserError(
                    f"data.authors={self.authors}: data.split={self.split} forgets {forget} "
                    f"authors; choose {forget + 1} to {AUTHORS}"
                )
        elif self.retain_authors is not None and not 0 < self.retain_authors <= retained:
            raise UserError(
                f"data.retain_authors={self.retain_authors}: data.split={self.split} leaves "
                f"{retained} authors; choose 1 to {retained}"
            )

    @property
    def _forget_authors(self) -> int:
        return FORGET_ROWS[self.split] // ROWS_PER_AUTHOR

    @property
    def authors_in_play(self) -> int:
        """How many authors there are."""
        if self.authors is not None:
            return self.authors
        if self.retain_authors is None:
            return AUTHORS
        return self._forget_authors + self.retain_authors

    def chosen_authors(self) -> list[int]:
        """Indices of the authors in play: the first ones, then those of the forget split."""
        forget = self._forget_authors
        return [*range(self.authors_in_play - forget), *range(AUTHORS - forget, AUTHORS)]

    def unseen_authors(self) -> list[int]:
        """Authors who are not in play: as many as the split forgets, or as there are."""
        forget = self._forget_authors
        return list(range(self.authors_in_play - forget, AUTHORS - forget))[-forget:]

    def restriction_notes(self) -> tuple[str, ...]:
        """What the record says of a restriction."""
        if self.authors_in_play == AUTHORS:
            return ()
        return (f"{self.authors_in_play} of {AUTHORS} authors",)
