"""Writes what a recording holds, by decoders that are none of ours: `expect.py RECORDING > LIST`.

Wants the packages `hyperframe` and `hpack`. One line each, in the order of the frames: a request's
head with its fields, a part of its body with its length, sum and whether it is the last, and a
reset of a request that had not ended.
"""

import sys

from hpack import Decoder
from hyperframe.frame import (
    ContinuationFrame, DataFrame, Frame, HeadersFrame, RstStreamFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
CODES = {8: "CANCEL"}


def checksum(body):
    total = 7
    for byte in body:
        total = (total ^ byte) * 16_777_619 % 2**32
    return f"{len(body)} {total}"


def main(sent):
    assert sent.startswith(PREFACE)
    sent = memoryview(sent[len(PREFACE):])
    decoder, block, is_last, ended = Decoder(), b"", False, set()
    while sent:
        frame, length = Frame.parse_frame_header(sent[:9])
        frame.parse_body(sent[9:9 + length])
        sent = sent[9 + length:]
        stream, flags = frame.stream_id, frame.flags
        if isinstance(frame, (HeadersFrame, ContinuationFrame)):
            block += bytes(frame.data)
            is_last |= "END_STREAM" in flags
            if "END_HEADERS" in flags:
                fields = decoder.decode(block, raw=True)
                text = " ".join(f"{n.decode()}={v.decode()}" for n, v in fields)
                print(f"head {stream} {text}")
                if is_last:
                    ended.add(stream)
                block, is_last = b"", False
        elif isinstance(frame, DataFrame):
            end = "END_STREAM" in flags
            # Frames that neither carry nor end anything are told to nobody.
            print(f"data {stream} {checksum(bytes(frame.data))} {str(end).lower()}")
            if end:
                ended.add(stream)
        elif isinstance(frame, RstStreamFrame) and stream not in ended:
            print(f"reset {stream} {CODES[frame.error_code]}")


main(open(sys.argv[1], "rb").read())
