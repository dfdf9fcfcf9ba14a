"""The span of time that a question names in plain words, and the lift that memories of that span get.

    yesterday, last week, three months ago, on Monday, in May, in May 2023, 5 June 2022, in 2022

English only, and only what names a span by itself: "before May", "since Monday" name none. A span is one of the
question's own calendar (`asked_at` and its zone). What a question names is a hint, so it lifts and never filters: by
MEMORY_TIME_WEIGHT of the best score, a tenth at most.
"""

import re
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Final

from memory.search.matches import Candidate

MOST_WEIGHT: Final = 0.1

Span = tuple[datetime, datetime]

_MONTHS: Final = (
    "january", "february", "march", "april", "may", "june",
    "july", "august", "september", "october", "november", "december",
)  # fmt: skip
_DAYS: Final = ("monday", "tuesday", "wednesday", "thursday", "friday", "saturday", "sunday")
_COUNTS: Final = (
    "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven", "twelve",
)  # fmt: skip
_MONTH, _DAY = rf"(?P<month>{'|'.join(_MONTHS)})", r"(?P<day>\d{1,2})(?:st|nd|rd|th)?"
_YEAR, _COUNT = r"(?P<year>(?:19|20)\d\d)", rf"(?P<count>\d{{1,3}}|an?|{'|'.join(_COUNTS)})"
_UNIT = r"(?P<unit>day|week|month|year)"


def span_of(question: str, asked_at: datetime) -> Span | None:
    """The span that a question names, from a beginning to an end that is no part of it; None where it names none."""
    text = " ".join(question.lower().split())
    today = asked_at.replace(hour=0, minute=0, second=0, microsecond=0)
    for pattern, span in _SPANS:
        found = pattern.search(text)
        if found:
            try:
                return None if _OUTSIDE.search(text[: found.start()]) else span(found, today)
            except (ValueError, OverflowError):  # 31 June, or a year before the first
                return None
    return None


def lifted(candidates: Sequence[Candidate], span: Span, weight: float) -> list[Candidate]:
    """All candidates, best first, those that happened in the span with up to `weight` of the best score added."""
    best = max((candidate.score for candidate in candidates), default=0.0)
    extra = max(0.0, min(weight, MOST_WEIGHT) * best)
    found = [
        each._replace(score=each.score + extra, time=extra)
        if span[0] <= (each.occurred_at or each.created_at) < span[1]
        else each
        for each in candidates
    ]
    return sorted(found, key=lambda candidate: -candidate.score)


# --- Spans ------------------------------------------------------------------------------------------------------------


def _span(first: datetime, unit: str) -> Span:
    """The day, week, month or year in which a moment lies."""
    if unit == "day":
        return first, first + timedelta(days=1)
    if unit == "week":
        monday = first - timedelta(days=first.weekday())
        return monday, monday + timedelta(days=7)
    if unit == "month":
        return first.replace(day=1), _months_before(first, -1)
    return first.replace(month=1, day=1), first.replace(year=first.year + 1, month=1, day=1)


def _months_before(day: datetime, months: int) -> datetime:
    """The first day of the month that lies so many months before."""
    year, month = divmod(day.year * 12 + day.month - 1 - months, 12)
    return day.replace(year=year, month=month + 1, day=1)


def _before(today: datetime, unit: str, count: int) -> datetime:
    if unit == "month":
        return _months_before(today, count)
    if unit == "year":
        return today.replace(year=today.year - count, month=1, day=1)
    return today - timedelta(days=count * (7 if unit == "week" else 1))


def _dated(found: re.Match[str], today: datetime) -> Span:
    """A day or a month, of the latest year in which it has begun where none is named."""
    parts = found.groupdict()
    month, day = _MONTHS.index(parts["month"]) + 1, int(parts.get("day") or 1)
    year = int(parts.get("year") or today.year)
    first = today.replace(year=year, month=month, day=day)
    if not parts.get("year") and first > today:
        first = first.replace(year=year - 1)
    return _span(first, "day" if parts.get("day") else "month")


def _weekday(found: re.Match[str], today: datetime) -> Span:
    back = (today.weekday() - _DAYS.index(found["weekday"])) % 7 or 7
    return _span(today - timedelta(days=back), "day")


def _ago(found: re.Match[str], today: datetime) -> Span:
    """The day, week, month or year so many of them ago."""
    return _span(_before(today, found["unit"], _count(found)), found["unit"])


def _until_today(found: re.Match[str], today: datetime) -> Span:
    return _before(today, found["unit"], _count(found)), today + timedelta(days=1)


def _year(found: re.Match[str], today: datetime) -> Span:
    return _span(today.replace(year=int(found["year"]), month=1, day=1), "year")


def _count(found: re.Match[str]) -> int:
    word = found.groupdict().get("count") or "one"
    return _COUNTS.index(word) + 1 if word in _COUNTS else 1 if word in ("a", "an") else int(word)


def _weekend(found: re.Match[str], today: datetime) -> Span:
    saturday = today - timedelta(days=(today.weekday() - 5) % 7 or 7)
    return saturday, saturday + timedelta(days=2)


def _iso(found: re.Match[str], today: datetime) -> Span:
    year, month, day = map(int, found.groups())
    return _span(today.replace(year=year, month=month, day=day), "day")


_Make = Callable[[re.Match[str], datetime], Span]
_OUTSIDE: Final = re.compile(r"\b(?:before|after|since|until|till|by|than|from)(?: the| last)? $")
_SPANS: Final[tuple[tuple[re.Pattern[str], _Make], ...]] = tuple(
    (re.compile(rf"\b(?:{pattern})\b"), span)
    for pattern, span in (
        (r"(\d{4})-(\d\d)-(\d\d)", _iso),
        (rf"{_DAY}(?: of)? {_MONTH}(?:,? {_YEAR})?", _dated),
        (rf"{_MONTH} {_DAY}(?:,? {_YEAR})?", _dated),
        (rf"{_MONTH},? (?:of )?{_YEAR}", _dated),
        (rf"(?:in|during|last|of) {_MONTH}", _dated),
        (rf"{_COUNT} {_UNIT}s? ago", _ago),
        (rf"(?:last|past|previous) {_COUNT} {_UNIT}s", _until_today),
        (r"day before yesterday", lambda found, today: _span(today - timedelta(days=2), "day")),
        (r"yesterday|last night", lambda found, today: _span(today - timedelta(days=1), "day")),
        (r"today|this morning|this afternoon|tonight", lambda found, today: _span(today, "day")),
        (r"last weekend|past weekend|on the weekend", _weekend),
        (rf"(?:last|past|previous) {_UNIT}", _ago),
        (rf"this {_UNIT}", lambda found, today: _span(today, found["unit"])),
        (rf"(?:last|past|on) (?P<weekday>{'|'.join(_DAYS)})", _weekday),
        (rf"(?:in|during|of) {_YEAR}", _year),
    )
)
