"""Read TensorBoard event files: each record is a length, its checksum, data and their checksum."""

import struct

from tensorboardX.proto.event_pb2 import Event
from tensorboardX.proto.plugin_hparams_pb2 import HParamsPluginData
from tensorboardX.record_writer import masked_crc32c


def read_events(path):
    """The events of a file, in their order."""
    content, place, events = path.read_bytes(), 0, []
    while place < len(content):
        header = content[place : place + 8]
        (length,), (checksum,) = (
            struct.unpack("<Q", header),
            struct.unpack_from("<I", content, place + 8),
        )
        assert checksum == masked_crc32c(header)
        data = content[place + 12 : place + 12 + length]
        assert struct.unpack_from("<I", content, place + 12 + length) == (masked_crc32c(data),)
        events.append(Event.FromString(data))
        place += length + 16
    return events


def read_curves(path):
    """Tag to step and value of every point, as 32-bit floats."""
    curves = {}
    for event in read_events(path):
        for value in event.summary.value:
            if value.HasField("simple_value"):
                curves.setdefault(value.tag, []).append((event.step, value.simple_value))
    return curves


def read_hyperparameters(path):
    """Name to value."""
    for event in read_events(path):
        for value in event.summary.value:
            if value.tag == "_hparams_/session_start_info":
                session = HParamsPluginData.FromString(value.metadata.plugin_data.content)
                shown = session.session_start_info.hparams
                return {name: getattr(one, one.WhichOneof("kind")) for name, one in shown.items()}
    return {}


def rounded(value):
    """A number as an event file holds it."""
    return struct.unpack("f", struct.pack("f", value))[0]
