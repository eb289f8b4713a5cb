"""Several pipes read at once, without calls that only POSIX systems have."""

import os

from medseg.system.pipe_reader import PipeReader


def pipe():
    back, to = os.pipe()
    return os.fdopen(back, "rb"), os.fdopen(to, "wb", buffering=0)


def gathered(reader, keys):
    """Everything until the end of each pipe."""
    found, ended = dict.fromkeys(keys, b""), set()
    while ended != set(keys):
        for key, part in reader.wait(10):
            found[key] += part
            if not part:
                ended.add(key)
    return found


def test_what_is_written_arrives_under_its_key_and_ends_with_nothing():
    (back_a, to_a), (back_b, to_b) = pipe(), pipe()
    with back_a, back_b:
        reader = PipeReader()
        reader.add(1, back_a)
        reader.add(2, back_b)
        with to_a, to_b:
            to_a.write(b"1" * 3_000)
            to_b.write(b"2")
            to_a.write(b"3")
        assert gathered(reader, (1, 2)) == {1: b"1" * 3_000 + b"3", 2: b"2"}
        reader.remove(1)
        reader.remove(2)
        assert reader.wait(0) == []


def test_nothing_comes_from_a_pipe_that_was_removed():
    back, to = pipe()
    with back:
        reader = PipeReader()
        reader.add(1, back)
        with to:
            to.write(b"late")
        reader.remove(1)
        assert reader.wait(0.01) == []
