# SPDX-FileCopyrightText: 2026 The orbit.imaging authors
# SPDX-License-Identifier: GPL-3.0-or-later
# GNU General Public License v3.0+ (see LICENSES/GPL-3.0-or-later.txt or https://www.gnu.org/licenses/gpl-3.0.txt)

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, strategies as st

from ansible_collections.orbit.imaging.plugins.module_utils.ping import (
    PingError,
    Statistics,
    parse,
    pooled,
    statistics,
    within,
)

IPUTILS = """\
PING 10.77.1.1 (10.77.1.1) 56(84) bytes of data.

--- 10.77.1.1 ping statistics ---
10 packets transmitted, 9 received, 10% packet loss, time 9012ms
rtt min/avg/max/mdev = 0.087/0.148/0.221/0.039 ms
"""


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        (IPUTILS, Statistics(10, 9, 0, 0.087, 0.148, 0.221, 0.039)),
        (
            # iputils: duplicates, errors, a pipe
            "4 packets transmitted, 2 received, +3 duplicates, +2 errors, 50% packet loss, time 3ms\n"
            "rtt min/avg/max/mdev = 1.000/2.000/3.000/1.000 ms, pipe 4\n",
            Statistics(4, 2, 3, 1.0, 2.0, 3.0, 1.0),
        ),
        (
            "5 packets transmitted, 0 received, 100% packet loss, time 4096ms\n\n",
            Statistics(5, 0),
        ),
        (
            "3 packets transmitted, 0 received, +3 errors, 100% packet loss, time 2031ms\npipe 3\n",
            Statistics(3, 0),
        ),
        (
            # busybox: no mdev
            "3 packets transmitted, 3 packets received, 0% packet loss\n"
            "round-trip min/avg/max = 0.048/0.054/0.062 ms\n",
            Statistics(3, 3, 0, 0.048, 0.054, 0.062, None),
        ),
        (
            "3 packets transmitted, 3 packets received, 2 duplicates, 0% packet loss\n"
            "round-trip min/avg/max = 0.048/0.054/0.062 ms\n",
            Statistics(3, 3, 2, 0.048, 0.054, 0.062, None),
        ),
        ("3 packets transmitted, 0 packets received, 100% packet loss\n", Statistics(3, 0)),
        (
            # BSD
            "2 packets transmitted, 2 packets received, 0.0% packet loss\n"
            "round-trip min/avg/max/stddev = 0.037/0.046/0.055/0.009 ms\n",
            Statistics(2, 2, 0, 0.037, 0.046, 0.055, 0.009),
        ),
        ("0 packets transmitted, 0 received\n", Statistics()),
    ],
)
def test_summaries(text, wanted):
    assert parse(text) == wanted


def test_lost_is_counted_not_read():
    assert parse(IPUTILS).lost_percent == pytest.approx(10)
    assert Statistics(3, 0).lost_percent == 100
    assert Statistics().lost_percent is None


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "it printed nothing"),
        ("ping: node1-1: Name or service not known\n", "Name or service not known"),
        ("PING 10.0.0.1\n64 bytes from 10.0.0.1: icmp_seq=1 ttl=64 time=1 ms\n", "icmp_seq=1"),
    ],
)
def test_what_is_no_summary_is_told(text, words):
    with pytest.raises(PingError, match=words):
        parse(text)


@given(st.text())
def test_any_text_is_understood_or_refused(text):
    with contextlib.suppress(PingError):
        parse(text)
    assert within(text, 0, 1e12, 0.2).received <= within(text, 0, 1e12, 0.2).sent


_TIME = st.floats(0.001, 5000).map(lambda value: round(value, 3))


@given(st.integers(0, 10**6), st.integers(0, 100), st.integers(0, 9), st.tuples(_TIME, _TIME, _TIME, _TIME))
def test_what_iputils_would_print_is_read_back(sent, lost, doubled, times):
    received = max(0, sent - lost)
    extra = f", +{doubled} duplicates" if doubled else ""
    text = f"{sent} packets transmitted, {received} received{extra}, 3% packet loss, time 1ms\n"
    if received:
        text += "rtt min/avg/max/mdev = {:.3f}/{:.3f}/{:.3f}/{:.3f} ms\n".format(*times)
    assert parse(text) == Statistics(sent, received, doubled, *(times if received else ()))


def _transcript(answers, sent, *, start=1000.0, interval=0.5, rtt=2.0, told=True):
    """What iputils prints for ``sent`` packets of which ``answers`` are answered."""
    lines = ["PING 10.77.1.1 (10.77.1.1) 56(84) bytes of data."]
    for number in range(1, sent + 1):
        at = start + number * interval
        if number in answers:
            seq = number % 65536
            lines.append(
                f"[{at + rtt / 1000:.6f}] 64 bytes from 10.77.1.1: icmp_seq={seq} ttl=64 time={rtt} ms"
            )
        elif told and number < sent:
            lines.append(f"[{at + interval:.6f}] no answer yet for icmp_seq={number % 65536}")
    lines.append(
        f"\n--- 10.77.1.1 ping statistics ---\n{sent} packets transmitted, {len(answers)} received\n"
    )
    return "\n".join(lines)


@given(st.sets(st.integers(1, 40)), st.integers(1, 40), st.integers(1, 40), st.booleans())
def test_a_window_has_the_packets_sent_in_it(answers, first, last, told):
    text = _transcript(answers, 40, told=told)
    found = within(text, 1000 + first * 0.5 - 0.1, 1000 + last * 0.5 + 0.1, 0.5)
    inside = set(range(first, last + 1))
    if answers or told:
        assert (found.sent, found.received) == (len(inside), len(inside & answers))
    if found.received:
        assert (found.least, found.mean, found.most, found.mdev) == (2.0, 2.0, 2.0, 0.0)


def test_packets_that_come_late_out_of_order_and_twice():
    text = "\n".join(
        [
            "[1001.000500] 64 bytes from 10.77.1.1: icmp_seq=1 ttl=64 time=0.500 ms",
            "[1003.000000] no answer yet for icmp_seq=2",
            "[1003.000100] 64 bytes from 10.77.1.1: icmp_seq=3 ttl=64 time=0.100 ms",
            "[1003.500000] 64 bytes from 10.77.1.1: icmp_seq=2 ttl=64 time=1500 ms",
            "[1003.600000] 64 bytes from 10.77.1.1: icmp_seq=2 ttl=64 time=1600 ms (DUP!)",
            "[1004.500000] From 10.77.0.1 icmp_seq=4 Destination Host Unreachable",
        ]
    )
    assert within(text, 1001.5, 1002.5, 1.0) == Statistics(1, 1, 1, 1500.0, 1500.0, 1500.0, 0.0)
    assert within(text, 0, 2000, 1.0)[:3] == (4, 3, 1)
    assert within(text, 0, 10, 1.0) == Statistics()


def test_numbers_that_wrap():
    answers = set(range(1, 70001))
    text = _transcript(answers, 70000, interval=0.002, rtt=0.1)
    assert within(text, 0, 1e9, 0.002)[:2] == (70000, 70000)


@given(st.lists(st.lists(st.floats(0.01, 1000), max_size=9), max_size=5), st.integers(0, 3))
def test_pooled_is_as_if_measured_together(parts, lost):
    together = statistics(sum(len(part) + lost for part in parts), [time for part in parts for time in part])
    found = pooled(statistics(len(part) + lost, part) for part in parts)
    assert found[:5] == pytest.approx(together[:5]) if together.mean else found == together
    assert found.mdev == (together.mdev if together.mdev is None else pytest.approx(together.mdev, abs=1e-6))


def test_of_pings_without_mdev_none_is_told():
    assert pooled([parse(IPUTILS), Statistics(1, 1, 0, 1.0, 1.0, 1.0, None)]).mdev is None


def test_columns_are_read_back():
    assert Statistics.from_dict(parse(IPUTILS).as_dict()) == parse(IPUTILS)
