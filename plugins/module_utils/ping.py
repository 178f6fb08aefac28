# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)
"""What programs called ``ping`` print, as numbers."""

from __future__ import annotations

import itertools
import math
import re
import typing as t

_COUNTS = re.compile(r"^(\d+) packets transmitted, (\d+)(?: packets)? received((?:, \+?\d+ [a-z]+)*)", re.M)
_DUPLICATES = re.compile(r"(\d+) duplicates")
_RTT = re.compile(
    r"^(?:rtt|round-trip) min/avg/max(?:/(?:mdev|stddev))? = ([\d.]+)/([\d.]+)/([\d.]+)(?:/([\d.]+))? ms",
    re.M,
)
# With -D a line begins with the time; with -O a packet is named when the next one goes out before its answer.
_ANSWER = re.compile(r"^\[(\d+\.\d+)\] \d+ bytes from .*icmp_seq=(\d+) .*time=([\d.]+) ms( \(DUP!\))?")
_SILENCE = re.compile(r"^\[(\d+\.\d+)\] (?:no answer yet for|From \S+(?: \(\S+\))?) icmp_seq=(\d+)\b")
_WRAP = 1 << 16


class PingError(Exception):
    """The text is not what a ``ping`` that has ended prints; says what it printed instead."""


class Statistics(t.NamedTuple):
    """Packets, and round-trip times in milliseconds; a time that is not known is None."""

    sent: int = 0
    received: int = 0
    duplicates: int = 0
    least: t.Optional[float] = None
    mean: t.Optional[float] = None
    most: t.Optional[float] = None
    mdev: t.Optional[float] = None

    @property
    def lost_percent(self) -> t.Optional[float]:
        """Share of packets without an answer; None when there were none."""
        return 100.0 * (self.sent - self.received) / self.sent if self.sent else None

    def as_dict(self) -> t.Dict[str, t.Any]:
        """Return the columns of the experiments of 2006 by name."""
        return {
            "packets": self.sent,
            "received": self.received,
            "duplicates": self.duplicates,
            "lost_percent": _rounded(self.lost_percent),
            "min": _rounded(self.least),
            "avg": _rounded(self.mean),
            "max": _rounded(self.most),
            "mdev": _rounded(self.mdev),
        }

    @classmethod
    def from_dict(cls, columns: t.Mapping[str, t.Any]) -> Statistics:
        """Return what :meth:`as_dict` was made of."""
        return cls(
            columns["packets"],
            columns["received"],
            columns["duplicates"],
            *(columns[name] for name in ("min", "avg", "max", "mdev")),
        )


def _rounded(value: t.Optional[float]) -> t.Optional[float]:
    return None if value is None else round(value, 3)


def parse(text: str) -> Statistics:
    """Return the summary at the end of what a ``ping`` of iputils, busybox or BSD has printed.

    :raises PingError: when there is none.
    """
    found = _last(_COUNTS, text)
    if found is None:
        lines = [line for line in text.splitlines() if line.strip()]
        raise PingError("ping gave no summary: " + (lines[-1].strip() if lines else "it printed nothing"))
    times = _last(_RTT, text, found.end())
    numbers = [None if part is None else float(part) for part in times.groups()] if times else [None] * 4
    duplicates = _DUPLICATES.search(found[3])
    return Statistics(int(found[1]), int(found[2]), int(duplicates[1]) if duplicates else 0, *numbers)


def _last(pattern: t.Pattern[str], text: str, start: int = 0) -> t.Optional[t.Match[str]]:
    """Return the last place that fits: before its end, SIGQUIT makes a ping print a summary, too."""
    found = None
    for match in pattern.finditer(text, start):
        found = match
    return found


def within(text: str, began: float, ended: float, interval: float) -> Statistics:
    """Return the statistics of the packets that ``ping -D -O`` sent between two moments.

    :param text: what it printed, with its summary when it has ended.
    :param began, ended: seconds since 1970, by the clock of the machine that pinged.
    :param interval: seconds from packet to packet.

    A packet without an answer was sent between its neighbours.
    """
    moments, times, doubled, last = _events(text, interval)
    counts = _last(_COUNTS, text)
    if counts is not None and last:
        # What is sent is counted beyond the last packet of which anything was heard.
        last = max(last, int(counts[1]))
    sent = [at for at in _placed(moments, last, interval) if began <= at[1] <= ended]
    inside = {number for number, _at in sent}
    rtts = [rtt for number, rtt in times.items() if number in inside]
    return statistics(len(sent), rtts, sum(doubled.get(number, 0) for number in inside))


def _events(
    text: str, interval: float
) -> t.Tuple[t.Dict[int, float], t.Dict[int, float], t.Dict[int, int], int]:
    """Return when packets were sent, their round-trip times, their duplicates, and the highest number."""
    moments: t.Dict[int, float] = {}
    times: t.Dict[int, float] = {}
    doubled: t.Dict[int, int] = {}
    last = 0
    for line in text.splitlines():
        answer, silence = _ANSWER.match(line), _SILENCE.match(line)
        found = answer or silence
        if found is None:
            continue
        # ping prints 16 bits of the number.
        number = int(found[2])
        number += _WRAP * max(0, round((last - number) / _WRAP))
        last = max(last, number)
        if answer is None:
            moments.setdefault(number, float(found[1]) - interval)
        elif answer[4]:
            doubled[number] = doubled.get(number, 0) + 1
        else:
            times[number] = float(answer[3])
            moments[number] = float(answer[1]) - times[number] / 1000
    return moments, times, doubled, last


def _placed(moments: t.Dict[int, float], last: int, interval: float) -> t.Iterator[t.Tuple[int, float]]:
    """Yield number and moment of each packet from the first to the last."""
    known = sorted(moments)
    if not known:
        return
    for number in range(1, known[0]):
        yield number, moments[known[0]] - (known[0] - number) * interval
    for here, there in itertools.pairwise(known):
        for number in range(here, there):
            share = (number - here) / (there - here)
            yield number, moments[here] + share * (moments[there] - moments[here])
    for number in range(known[-1], last + 1):
        yield number, moments[known[-1]] + (number - known[-1]) * interval


def statistics(sent: int, times: t.Sequence[float], duplicates: int = 0) -> Statistics:
    """Return the statistics of packets of which those with ``times`` (milliseconds) were answered."""
    if not times:
        return Statistics(sent, 0, duplicates)
    mean = sum(times) / len(times)
    # The root of what is left of two large numbers would be wrong where all times are nearly the same.
    mdev = math.sqrt(sum((time - mean) ** 2 for time in times) / len(times))
    return Statistics(sent, len(times), duplicates, min(times), mean, max(times), mdev)


def pooled(parts: t.Iterable[Statistics]) -> Statistics:
    """Return the statistics of all packets of several pings. mdev is None where one of them has none."""
    parts = list(parts)
    heard = [part for part in parts if part.received and part.mean is not None]
    sent, received, duplicates = (
        sum(part.sent for part in parts),
        sum(part.received for part in parts),
        sum(part.duplicates for part in parts),
    )
    if not heard:
        return Statistics(sent, received, duplicates)
    number = sum(part.received for part in heard)
    mean = sum(part.received * t.cast(float, part.mean) for part in heard) / number
    mdev = None
    if all(part.mdev is not None for part in heard):
        square = sum(
            part.received * (t.cast(float, part.mdev) ** 2 + (t.cast(float, part.mean) - mean) ** 2)
            for part in heard
        )
        mdev = math.sqrt(square / number)
    least = min(t.cast(float, part.least) for part in heard)
    most = max(t.cast(float, part.most) for part in heard)
    return Statistics(sent, received, duplicates, least, mean, most, mdev)
