"""The messages of a shell channel: found whatever they are cut into and whatever stands between."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from nxc_testing.shell.frames import MAX_HEADER, MAX_PAYLOAD, Frame, FrameDecoder, order

TOKEN = "0123456789abcdef"  # noqa: S105
KINDS = "POELHDAFN"

frames = st.builds(
    Frame,
    kind=st.sampled_from(KINDS),
    id=st.integers(0, 10**12),
    payload=st.binary(max_size=300) | st.just(TOKEN.encode() + b" D 1 1\n0"),
)
noise = st.binary(max_size=400).filter(lambda data: TOKEN[:4].encode() not in data)


def encoded(frame: Frame, token: str = TOKEN) -> bytes:
    return f"{token} {frame.kind} {frame.id} {len(frame.payload)}\n".encode() + frame.payload


def fed(data: bytes, cuts: list[int], decoder: FrameDecoder | None = None) -> list[Frame]:
    decoder = decoder or FrameDecoder(TOKEN)
    ends = [*sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    found: list[Frame] = []
    start = 0
    for end in ends:
        found += decoder.feed(data[start:end])
        start = end
    return found


cuts = st.lists(st.integers(0, 1 << 20), max_size=40)


@given(st.lists(st.tuples(noise, frames), max_size=8), noise, cuts)
@settings(max_examples=200, deadline=None)
def test_frames_are_found_however_they_are_cut_and_whatever_is_between(
    parts: list[tuple[bytes, Frame]], after: bytes, cuts: list[int]
) -> None:
    data = b"".join(before + encoded(frame) for before, frame in parts) + after
    # A flood without a newline is cut, as no header is that long, but never into a header.
    assert fed(data, cuts) == [frame for _, frame in parts]


@given(st.lists(frames, max_size=5))
@settings(deadline=None)
def test_byte_by_byte(sent: list[Frame]) -> None:
    data = b"".join(map(encoded, sent))
    assert fed(data, list(range(len(data)))) == sent


pieces_of_frames = st.lists(
    st.binary(max_size=50)
    | st.sampled_from(
        [TOKEN.encode(), b" ", b"\n", b"\r\n", b"O", b"D 1", b"1" * 5000, b"0", b"-1"]
    ),
    max_size=40,
).map(b"".join)


@given(pieces_of_frames, cuts)
@settings(max_examples=200, deadline=None)
def test_garbage_is_survived(data: bytes, cuts: list[int]) -> None:
    decoder = FrameDecoder(TOKEN)
    fed(data, cuts, decoder)
    # What follows is found, unless garbage announced a payload, which then takes it in.
    found = decoder.feed(b"\n" + b"x" * MAX_PAYLOAD + b"\n" + encoded(Frame("D", 7, b"3")))
    assert found[-1:] == [Frame("D", 7, b"3")]


def test_a_flood_without_a_newline_fills_no_memory() -> None:
    decoder = FrameDecoder(TOKEN)
    for _ in range(100):
        assert decoder.feed(b"x" * 100_000) == []
    assert decoder.held <= MAX_HEADER
    assert len(decoder.noise) <= 4096
    assert decoder.feed(encoded(Frame("D", 7, b"0"))) == [Frame("D", 7, b"0")]


def test_a_header_that_announces_too_much_is_noise() -> None:
    decoder = FrameDecoder(TOKEN)
    huge = f"{TOKEN} O 1 {MAX_PAYLOAD + 1}\n".encode()
    assert decoder.feed(huge + encoded(Frame("D", 1, b"0"))) == [Frame("D", 1, b"0")]


def test_a_number_of_thousands_of_digits_is_noise() -> None:
    decoder = FrameDecoder(TOKEN)
    assert decoder.feed(f"{TOKEN} O {'1' * 5000} 0\n".encode()) == []
    assert decoder.feed(f"{TOKEN} O 1 {'0' * 5000}\n".encode()) == []


def test_frames_of_another_connection_are_noise() -> None:
    assert FrameDecoder(TOKEN).feed(encoded(Frame("D", 1, b"0"), "fedcba9876543210")) == []


def test_a_prompt_before_the_token_does_not_hide_the_frame() -> None:
    decoder = FrameDecoder(TOKEN)
    assert decoder.feed(b"root@one:~# " + encoded(Frame("P", 0, b""))) == [Frame("P", 0, b"")]
    assert decoder.noise == b"root@one:~# "


def test_noise_is_kept_for_the_error() -> None:
    decoder = FrameDecoder(TOKEN)
    decoder.feed(b"This account is not available.\n" + encoded(Frame("P", 0, b"")) + b"more\n")
    assert decoder.noise == b"This account is not available.\nmore\n"


def test_a_terminal_that_sends_carriage_returns() -> None:
    assert FrameDecoder(TOKEN).feed(f"{TOKEN} P 0 0\r\n".encode()) == [Frame("P", 0, b"")]


def test_an_order_says_how_long_its_payload_is() -> None:
    assert order("R", 12, "e", "strict", "0", payload=b"true\n") == b"R 12 e strict 0 5\ntrue\n"
