"""What a compressed DICOM frame says itself of its size, to compare with its header."""

from __future__ import annotations

import struct
from dataclasses import dataclass

from pydicom.uid import UID, RLELossless

# Start of frame of the JPEG family, and of JPEG-LS.
_STARTS = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
_ALONE = {0x01, *range(0xD0, 0xD9)}  # markers without a length
_END = 0xD9
_RLE_HEADER = 64


@dataclass(frozen=True)
class FrameSize:
    """The size of a compressed frame.

    Attributes
    ----------
    pixels
        Rows and columns, or their product alone.
    bits
        Bits of a sample.
    """

    pixels: tuple[int, ...]
    bits: int

    def fits(self, rows: int, columns: int, allocated: int, stored: int) -> bool:
        """Whether a header describes this size.

        Parameters
        ----------
        rows, columns, allocated, stored
            Rows, Columns, BitsAllocated and BitsStored of the header.
        """
        if len(self.pixels) == 1:
            # Encoders fill up an odd number.
            pixels = self.pixels[0] - rows * columns in (0, 1)
        else:
            pixels = self.pixels == (rows, columns)
        whole = -(-max(self.bits, stored) // 8) * 8  # 12 bits are held in 16
        return pixels and (whole == allocated or (whole == 8 and allocated == 16))


def size_of_frame(frame: bytes, syntax: UID, samples: int) -> FrameSize | None:
    """The size that a compressed frame has by its own account; None if it gives none.

    Parameters
    ----------
    frame
        The encoded frame.
    syntax
        Its transfer syntax.
    samples
        Samples of a pixel.
    """
    try:
        if syntax == RLELossless:
            return _rle(frame, samples)
        start = frame.find(b"\xff\x4f\xff\x51")
        if start >= 0 and not frame.startswith(b"\xff\xd8"):
            return _jpeg2000(frame, start)
        return _jpeg(frame)
    except (IndexError, struct.error):
        return None


def _jpeg2000(frame: bytes, start: int) -> FrameSize:
    """From the segment SIZ, ISO/IEC 15444-1, annex A.5.1."""
    width, height, left, top = struct.unpack_from(">4I", frame, start + 8)
    return FrameSize((height - top, width - left), (frame[start + 42] & 0x7F) + 1)


def _jpeg(frame: bytes) -> FrameSize | None:
    """From the frame's header, ITU-T T.81, annex B.2.2."""
    place = 0
    while frame[place] == 0xFF:
        marker = frame[place + 1]
        if marker in _STARTS:
            bits, rows, columns = struct.unpack_from(">BHH", frame, place + 4)
            return FrameSize((rows, columns), bits) if rows else None
        if marker == _END:
            return None
        length = 0 if marker in _ALONE else struct.unpack_from(">H", frame, place + 2)[0]
        place += 1 if marker == 0xFF else 2 + length
    return None


def _rle(frame: bytes, samples: int) -> FrameSize | None:
    """From the number of segments and the runs of the first, PS3.5, annex G."""
    count, first, second = struct.unpack_from("<3I", frame)
    if not 1 <= count <= 15 or count % samples:
        return None
    place, end, pixels = first, second if count > 1 else len(frame), 0
    while place < end:
        length = frame[place]
        if length < 128:
            pixels += min(length + 1, end - place - 1)
            place += length + 2
        else:  # 128 stands for nothing
            pixels += 257 - length if length > 128 and place + 1 < end else 0
            place += 2 if length > 128 else 1
    return FrameSize((pixels,), 8 * count // samples)
