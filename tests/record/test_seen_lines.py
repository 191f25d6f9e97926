"""Lines that came before are known, in few bytes each."""

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from runner.record.seen_lines import SeenLines

LINES = 100_000
MAX_BYTES_A_LINE = 32
"""A table of 2^18 slots of 8 bytes, and the one of half of that size from which it was filled; a set took over 100."""


@given(st.lists(st.binary(max_size=2)))
def test_a_line_is_new_once(lines: list[bytes]):
    seen, before = SeenLines(), set[bytes]()
    for line in lines:
        assert seen.add(line) == (line not in before)
        before.add(line)


def test_a_hundred_thousand_lines_take_few_bytes_each():
    tracemalloc.start()
    try:
        seen = SeenLines()
        assert all(seen.add(b"%d\n" % number) for number in range(LINES))
        assert not any(seen.add(b"%d\n" % number) for number in range(LINES))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < MAX_BYTES_A_LINE * LINES
