"""A multipart body gives the same parts however it is cut into pieces."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.dicomweb_server import BOUNDARY, multipart

from medseg.io.dicomweb.multipart import BodyCut, BodyError, parts

MARK = BOUNDARY.encode()


def joined(chunks) -> list[bytes]:
    found: list[bytes] = []
    for piece in parts(chunks, MARK):
        if piece is None:
            found.append(b"")
        else:
            found[-1] += piece
    return found


# Pieces of boundaries within parts, which must not end them.
CONTENT = st.lists(
    st.sampled_from([b"\r", b"\n", b"-", b"--", b"\r\n--", MARK[:4], b"x", b"\0", b"\r\n--b0"]), max_size=9
)


@given(
    contents=st.lists(CONTENT.map(b"".join), min_size=1, max_size=4),
    size=st.integers(1, 40),
    start=st.booleans(),
)
def test_any_cut_gives_the_same_parts(contents, size, start):
    body = multipart(contents)
    body = body[2:] if start else b"preamble" + body  # the first line break is optional
    assert joined(body[at : at + size] for at in range(0, len(body), size)) == contents


def test_what_follows_the_last_boundary_does_not_count():
    assert joined([multipart([b"one"]) + b"epilogue\r\n--" + MARK + b"\r\n\r\nmore"]) == [b"one"]


def test_a_part_may_have_no_headers():
    assert joined([b"--" + MARK + b"\r\n\r\none\r\n--" + MARK + b"--"]) == [b"one"]


def test_every_early_end_is_noticed():
    body = multipart([b"one", b"two"]).rstrip()
    for end in range(len(body)):
        with pytest.raises(BodyError):
            joined([body[:end]])
    with pytest.raises(BodyCut):
        joined([body[:-1]])
    assert joined([body]) == [b"one", b"two"]


def test_a_body_of_another_form_is_refused_and_not_collected():
    with pytest.raises(BodyError, match="no boundary"):
        joined([b"<html>" * 10])
    with pytest.raises(BodyError, match="no end"):
        joined([b"--" + MARK + b"\r\n", *[b"x" * 1000] * 20])


def test_one_piece_is_in_memory_at_a_time():
    body = multipart([b"x" * 1_000_000])
    pieces = [
        piece for piece in parts((body[at : at + 1000] for at in range(0, len(body), 1000)), MARK) if piece
    ]
    assert max(map(len, pieces)) <= 1000 + len(MARK) + 4
