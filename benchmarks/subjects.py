"""Finding the person a block of questions is about."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

_WORD = r"[^\W\d_a-z][\w.'’-]*"
_PARTICLE = r"(?:al|bin|ben|da|de|del|der|di|dos|el|ibn|la|le|van|von|y)"
_NAME = re.compile(rf"{_WORD}(?:\s+(?:{_PARTICLE}\s+)*{_WORD})*")
_POSSESSIVE = re.compile(r"['’]s?$")
_NOT_NAMES = frozenset(
    [
        "A",
        "Also",
        "An",
        "And",
        "Another",
        "Apart",
        "Are",
        "As",
        "At",
        "Author",
        "Besides",
        "Beyond",
        "Both",
        "Can",
        "Could",
        "Did",
        "Do",
        "Does",
        "During",
        "Each",
        "For",
        "From",
        "Given",
        "Has",
        "Have",
        "How",
        "However",
        "If",
        "In",
        "Is",
        "Its",
        "It",
        "Many",
        "Most",
        "Of",
        "On",
        "One",
        "Other",
        "Overall",
        "Several",
        "She",
        "He",
        "His",
        "Her",
        "Their",
        "They",
        "Some",
        "The",
        "These",
        "This",
        "Through",
        "To",
        "Two",
        "Was",
        "Were",
        "What",
        "When",
        "Where",
        "Which",
        "While",
        "Who",
        "Whose",
        "Why",
        "With",
        "Would",
        "Yes",
        "No",
        "Despite",
        "Although",
        "Like",
    ]
)


def _names_in(text: str) -> set[str]:
    """Capitalised spans of at least two words, without words that only begin a sentence."""
    names = set()
    for match in _NAME.finditer(text):
        words = [_POSSESSIVE.sub("", word).strip(".,") for word in match.group().split()]
        while words and words[0] in _NOT_NAMES:
            words = words[1:]
        for length in range(2, min(len(words), 5) + 1):
            for start in range(len(words) - length + 1):
                names.add(" ".join(words[start : start + length]))
    return names


def main_subject(questions: Sequence[str], answers: Sequence[str]) -> str | None:
    """The full name that most of a person's rows mention; the longest of equally frequent ones.

    Questions count twice: an answer also names books and places.
    """
    counts: Counter[str] = Counter()
    for question, answer in zip(questions, answers, strict=True):
        for name in _names_in(question):
            counts[name] += 2
        for name in _names_in(answer):
            counts[name] += 1
    if not counts:
        return None
    # A longer form that is nearly as frequent is the full name ("Al-Kuwaiti" is only a part).
    most = max(counts.values())
    candidates = [name for name, count in counts.items() if count >= 0.75 * most]
    return max(candidates, key=lambda name: (len(name.split()), counts[name], name))


def subject_in(question: str, full_name: str | None) -> str | None:
    """The longest form of ``full_name`` that stands in ``question`` as whole words, or None."""
    if not full_name:
        return None
    words = full_name.split()
    for length in range(len(words), 0, -1):
        for start in range(len(words) - length + 1):
            form = " ".join(words[start : start + length])
            if len(form) > 2 and re.search(rf"(?<!\w){re.escape(form)}(?!\w)", question):
                return form
    return None


def assign_subjects(questions: Sequence[str], answers: Sequence[str]) -> list[str | None]:
    """The subject of every row of one person."""
    name = main_subject(questions, answers)
    return [subject_in(question, name) for question in questions]
