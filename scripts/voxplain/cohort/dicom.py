"""Writing a volume as a DICOM series, one MR Image Storage object a slice."""

from __future__ import annotations

import datetime
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MRImageStorage, generate_uid

from voxplain.volumes import Grid

# pydicom's own root for generated identifiers.
_UID_PREFIX = "1.2.826.0.1.3680043.8.498."


@dataclass(frozen=True)
class SeriesHeader:
    """Variable header fields of a series; the others are those of an ADNI-1 MPRAGE at 1.5 T.

    Attributes
    ----------
    subject, sex, age
        Patient identifier (no name is written); ``F`` or ``M``; years.
    acquired
        Date and time of the acquisition, ISO 8601.
    image
        The archive's image id, ``I`` and digits.
    description
        Series description.
    """

    subject: str
    sex: str
    age: float
    acquired: str
    image: str
    description: str


def write_series(folder: Path, volume: np.ndarray, grid: Grid, header: SeriesHeader) -> list[Path]:
    """Write a volume as sagittal slices, with the file names of the archive; their paths.

    The same arguments give the same bytes: identifiers are derived from the header.

    Parameters
    ----------
    folder
        Output folder; it is created.
    volume
        ``[x, y, z]`` uint16, RAS+.
    grid
        Grid of the volume, along the axes of space.
    """
    folder.mkdir(parents=True, exist_ok=True)
    moment = datetime.datetime.fromisoformat(header.acquired)
    study = generate_uid(_UID_PREFIX, [header.subject, header.acquired, "study"])
    series = generate_uid(_UID_PREFIX, [header.subject, header.acquired, header.image, "series"])
    frame = generate_uid(_UID_PREFIX, [header.subject, header.acquired, "frame"])
    number = int(header.image.lstrip("I"))
    stamp = f"{moment:%Y%m%d%H%M%S}000"
    paths = []
    for index in range(grid.shape[0]):
        instance = generate_uid(_UID_PREFIX, [series, str(index)])
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID = MRImageStorage
        meta.MediaStorageSOPInstanceUID = instance
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        name = (
            f"ADNI_{header.subject}_MR_{header.description}__br_raw_{stamp}_{index + 1}"
            f"_S{number + 1}_{header.image}.dcm"
        )
        path = folder / name
        slice_ = FileDataset(path, {}, file_meta=meta, preamble=b"\0" * 128)
        slice_.ImageType = ["ORIGINAL", "PRIMARY", "OTHER"]
        slice_.SOPClassUID = MRImageStorage
        slice_.SOPInstanceUID = instance
        slice_.StudyDate = slice_.SeriesDate = slice_.AcquisitionDate = f"{moment:%Y%m%d}"
        slice_.ContentDate = slice_.StudyDate
        slice_.StudyTime = slice_.SeriesTime = slice_.AcquisitionTime = f"{moment:%H%M%S}"
        slice_.ContentTime = slice_.StudyTime
        slice_.AccessionNumber = ""
        slice_.Modality = "MR"
        slice_.Manufacturer = "voxplain"
        slice_.ManufacturerModelName = "simulated head"
        slice_.ReferringPhysicianName = ""
        slice_.StudyDescription = "simulated ADNI-like study"
        slice_.SeriesDescription = header.description
        slice_.PatientName = f"{header.subject}^"
        slice_.PatientID = header.subject
        slice_.PatientBirthDate = ""
        slice_.PatientSex = header.sex
        slice_.PatientAge = f"{int(header.age):03d}Y"
        slice_.BodyPartExamined = "HEAD"
        slice_.ScanningSequence = ["GR", "IR"]
        slice_.SequenceVariant = ["SP", "MP"]
        slice_.ScanOptions = "PFP"
        slice_.MRAcquisitionType = "3D"
        slice_.SliceThickness = round(grid.voxel_size[0], 4)
        slice_.SpacingBetweenSlices = round(grid.voxel_size[0], 4)
        slice_.RepetitionTime = 2400
        slice_.EchoTime = 3.5
        slice_.InversionTime = 1000
        slice_.EchoTrainLength = 1
        slice_.FlipAngle = 8
        slice_.MagneticFieldStrength = 1.5
        slice_.PatientPosition = "HFS"
        slice_.StudyInstanceUID = study
        slice_.SeriesInstanceUID = series
        slice_.StudyID = "1"
        slice_.SeriesNumber = 2
        slice_.AcquisitionNumber = 1
        slice_.InstanceNumber = index + 1
        # DICOM uses LPS+: x and y change sign. Columns run to the back, rows downwards.
        last = grid.matrix[:3, :3] @ [index, grid.shape[1] - 1, grid.shape[2] - 1]
        right, front, top = last + grid.matrix[:3, 3]
        slice_.ImagePositionPatient = [round(-right, 4), round(-front, 4), round(top, 4)]
        slice_.ImageOrientationPatient = [0, 1, 0, 0, 0, -1]
        slice_.FrameOfReferenceUID = frame
        slice_.PositionReferenceIndicator = ""
        slice_.SliceLocation = round(-right, 4)
        slice_.SamplesPerPixel = 1
        slice_.PhotometricInterpretation = "MONOCHROME2"
        slice_.Rows, slice_.Columns = grid.shape[2], grid.shape[1]
        slice_.PixelSpacing = [round(grid.voxel_size[2], 4), round(grid.voxel_size[1], 4)]
        slice_.BitsAllocated, slice_.BitsStored, slice_.HighBit = 16, 12, 11
        slice_.PixelRepresentation = 0
        slice_.WindowCenter, slice_.WindowWidth = 400, 800
        pixels = volume[index, ::-1, ::-1].T
        slice_.PixelData = np.ascontiguousarray(pixels, dtype="<u2").tobytes()
        slice_.save_as(path, enforce_file_format=True)
        paths.append(path)
    return paths
