"""A file is read as it is meant, or refused with the reason; what is written lies on its grid."""

from __future__ import annotations

import contextlib
import gzip
import io
import itertools
import logging
import os
import warnings
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from brats_cache.common.errors import DataFaults
from brats_cache.imaging.gzip import MAX_MEMBERS
from brats_cache.imaging.nifti import read_contents, read_labels, read_volume
from brats_cache.imaging.nifti_header import read_header
from brats_cache.imaging.nifti_writer import encode_volume
from brats_cache.imaging.orientation import Orientation
from tests.cache.scans import LPS, SHAPE, edit, image, write

CODES = [
    "".join(letters)
    for axes in itertools.permutations(("LR", "PA", "IS"))
    for letters in itertools.product(*axes)
]


def read(path: Path) -> np.ndarray:
    return read_volume(read_contents(read_header(path)))


def labels_of(path: Path) -> np.ndarray:
    return read_labels(read_contents(read_header(path)))


def fault_of(path: Path) -> str:
    """The one message of a file that is refused, which names the file."""
    with pytest.raises(DataFaults) as refusal:
        read(path)
    (fault,) = refusal.value.faults
    assert fault.path == path
    assert "\n" not in str(fault)
    return str(fault)


def reoriented(made: nib.Nifti1Image, codes: str) -> nib.Nifti1Image:
    there = nib.orientations.axcodes2ornt(codes)
    here = nib.io_orientation(made.affine)
    return made.as_reoriented(nib.orientations.ornt_transform(here, there))


# Orientation


def test_the_canonical_array_is_axial_slices_with_posterior_rows_and_left_columns(
    tmp_path: Path,
) -> None:
    affine = np.diag([2.0, 3.0, 4.0, 1.0])  # RAS: x runs to the right, y to anterior
    data = np.zeros((5, 6, 7), np.int16)
    data[4, 5, 6] = 1  # rightmost, most anterior, highest
    header = read_header(write(tmp_path / "a.nii", data, affine))
    assert (header.codes, header.canonical_shape) == ("RAS", (7, 6, 5))
    assert header.spacing == (4.0, 3.0, 2.0)
    assert np.argwhere(read(header.path) == 1).tolist() == [[6, 0, 0]]


@pytest.mark.parametrize("codes", CODES)
def test_every_order_and_direction_of_axes_is_one_canonical_volume(
    tmp_path: Path, codes: str
) -> None:
    made = nib.Nifti1Image(image(1), LPS)
    wanted = np.transpose(image(1), (2, 1, 0))
    other = reoriented(made, codes)
    assert nib.aff2axcodes(other.affine) == tuple(codes)
    nib.save(other, tmp_path / "a.nii")
    assert np.array_equal(read(tmp_path / "a.nii"), wanted)


@given(st.sampled_from(CODES), st.tuples(*[st.integers(1, 5)] * 3))
def test_orientation_there_and_back(codes: str, shape: tuple[int, int, int]) -> None:
    affine = nib.orientations.inv_ornt_aff(
        nib.orientations.ornt_transform(
            nib.orientations.axcodes2ornt("RAS"), nib.orientations.axcodes2ornt(codes)
        ),
        (9, 9, 9),
    )
    orientation = Orientation.of(np.linalg.inv(affine))
    volume = np.arange(np.prod(shape)).reshape(shape)
    assert np.array_equal(orientation.to_source(orientation.to_canonical(volume)), volume)
    assert np.array_equal(orientation.to_canonical(orientation.to_source(volume)), volume)


@pytest.mark.parametrize("degrees", [0.0, 8.0, 19.0])
def test_a_slightly_oblique_stack_is_read_as_it_lies(tmp_path: Path, degrees: float) -> None:
    path = write(tmp_path / "a.nii", image(1), _tilt(degrees) @ LPS)
    assert np.array_equal(read(path), np.transpose(image(1), (2, 1, 0)))


def test_a_strongly_oblique_stack_is_refused_with_its_angle(tmp_path: Path) -> None:
    said = fault_of(write(tmp_path / "a.nii", image(1), _tilt(31) @ LPS))
    assert "31 degrees" in said
    assert "axial" in said


@pytest.mark.parametrize(
    ("codes", "zooms", "word"),
    [("LIP", (1, 1, 5), "coronal"), ("PIL", (1, 1, 5), "sagittal"), ("LPS", (1, 5, 1), "coronal")],
)
def test_a_stack_that_is_not_axial_is_refused_by_name(
    tmp_path: Path, codes: str, zooms: tuple[int, int, int], word: str
) -> None:
    ornt = nib.orientations.axcodes2ornt(codes)
    affine = np.eye(4)
    affine[:3, :3] = 0
    for axis, (world, sign) in enumerate(ornt):
        affine[int(world), axis] = sign * zooms[axis]
    said = fault_of(write(tmp_path / "a.nii", image(1), affine))
    assert word in said
    assert "Resample" in said


def test_thick_axial_slices_of_any_number_are_fine(tmp_path: Path) -> None:
    data = np.ones((256, 256, 20), np.uint8)
    path = write(tmp_path / "a.nii", data, LPS @ np.diag([1, 1, 6, 1]))
    assert read_header(path).canonical_shape == (20, 256, 256)


def _tilt(degrees: float) -> np.ndarray:
    angle = np.radians(degrees)
    turn = np.eye(4)
    turn[1:3, 1:3] = [[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]
    return turn


# Values


@pytest.mark.parametrize(
    "dtype", ["u1", "i1", "<i2", ">i2", "<u2", ">u2", "<i4", "<u4", "<f4", ">f4", "<f8", ">f8"]
)
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_values_are_those_nibabel_reads(tmp_path: Path, dtype: str, kind: type) -> None:
    values = np.random.default_rng(0).integers(0, 120, SHAPE)
    values = values - 60 if np.dtype(dtype).kind != "u" else values
    header = kind.header_class(endianness=">" if dtype[0] == ">" else "<")
    header.set_data_dtype(np.dtype(dtype).newbyteorder("="))
    path = tmp_path / "a.nii.gz"
    nib.save(kind(values.astype(np.dtype(dtype).newbyteorder("=")), LPS, header), path)
    volume = read(path)
    assert volume.dtype.isnative
    assert volume.dtype.itemsize <= 4
    reference = np.transpose(nib.load(path).get_fdata(), (2, 1, 0))
    assert np.array_equal(volume, reference)
    assert np.array_equal(read_header(path).affine, nib.load(path).affine)


@pytest.mark.parametrize(("slope", "inter"), [(0.25, -7.5), (3, 1024), (1, -1), (-2, 0)])
def test_slope_and_intercept_are_applied(tmp_path: Path, slope: float, inter: float) -> None:
    path = write(tmp_path / "a.nii", image(1), scl_slope=slope, scl_inter=inter)
    reference = np.transpose(nib.load(path).get_fdata(), (2, 1, 0)).astype(np.float32)
    assert np.array_equal(read(path), reference)


@pytest.mark.parametrize("slope", [0.0, np.nan, np.inf])
def test_a_slope_that_says_nothing_scales_nothing(tmp_path: Path, slope: float) -> None:
    path = write(tmp_path / "a.nii", image(1), scl_slope=slope, scl_inter=5)
    assert np.array_equal(read(path), np.transpose(image(1), (2, 1, 0)))


def test_values_beyond_float32_become_infinite_without_a_word(
    tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    wide = np.full(SHAPE, 1e300)
    scaled = write(tmp_path / "b.nii", image(1).astype(np.float64) * 1e30, scl_slope=1e30)
    for path in (write(tmp_path / "a.nii", wide), scaled):
        assert np.isinf(read(path)).any()
    assert not recwarn.list


# Labels


@given(st.lists(st.integers(0, 255), min_size=1, max_size=6), st.floats(-9e-4, 9e-4))
def test_labels_near_an_integer_count_as_it(
    tmp_path_factory: pytest.TempPathFactory, values: list[int], error: float
) -> None:
    path = tmp_path_factory.mktemp("labels") / "a.nii"
    data = np.resize(np.array(values, np.float64) + error, SHAPE)
    assert np.array_equal(labels_of(write(path, data)), np.resize(values, SHAPE).transpose(2, 1, 0))


@pytest.mark.parametrize(
    ("value", "dtype", "shown"),
    [
        (0.5, np.float32, "0.5"),
        (1.002, np.float64, "1.002"),
        (-1, np.int16, "-1"),
        (256, np.uint16, "256"),
        (np.nan, np.float32, "nan"),
        (np.inf, np.float32, "inf"),
        (-np.inf, np.float64, "-inf"),
        (1e12, np.int64, "1e+12"),
    ],
)
def test_other_values_are_no_labels(
    tmp_path: Path, value: float, dtype: type, shown: str, recwarn: pytest.WarningsRecorder
) -> None:
    data = np.zeros(SHAPE, dtype)
    data[0, 0, :2] = value
    path = write(tmp_path / "a.nii", data)
    with pytest.raises(DataFaults) as refusal:
        labels_of(path)
    assert f"2 voxels with values that are no label ({shown})" in str(refusal.value)
    assert not recwarn.list


# Rank


def test_one_volume_more_axes_of_one_is_a_volume(tmp_path: Path) -> None:
    for rank in (4, 5, 7):
        data = image(1).reshape(SHAPE + (1,) * (rank - 3))
        assert np.array_equal(read(write(tmp_path / f"{rank}.nii", data)), image(1).T)


@pytest.mark.parametrize("shape", [(14, 12), (14, 12, 6, 2), (4, 3, 2, 1, 3), (9,)])
def test_other_ranks_are_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    said = fault_of(write(tmp_path / "a.nii", np.ones(shape, np.int16)))
    assert f"{len(shape)}-D data" in said


def test_channels_of_a_4d_file(tmp_path: Path) -> None:
    data = np.stack([image(seed) for seed in range(3)], axis=-1)
    contents = read_contents(read_header(write(tmp_path / "a.nii.gz", data)))
    for channel in range(3):
        assert np.array_equal(read_volume(contents, channel), image(channel).T)
    with pytest.raises(DataFaults, match="at least 4"):
        read_volume(contents, 3)


# Headers that are wrong


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"dim": [3, 0, 12, 6, 1, 1, 1, 1]}, "0 x 12 x 6"),
        ({"dim": [3, -5, 12, 6, 1, 1, 1, 1]}, "x 12 x 6"),
        ({"dim": [0, 14, 12, 6, 1, 1, 1, 1]}, "expected"),
        ({"dim": [9, 14, 12, 6, 1, 1, 1, 1]}, "expected"),
        ({"dim": [3, 32767, 32767, 32767, 1, 1, 1, 1]}, "32767 x 32767 x 32767 voxels"),
        ({"dim": [4, 14, 12, 6, 32767, 1, 1, 1]}, "truncated"),
        ({"dim": [4, 1024, 1024, 512, 4, 1, 1, 1]}, "MiB"),
        ({"dim": [3, 14, 12, 7, 1, 1, 1, 1]}, "truncated"),
        ({"datatype": 0}, "data code 0"),
        ({"datatype": 128, "bitpix": 24}, "data type"),
        ({"datatype": 32, "bitpix": 64}, "data type complex64"),
        ({"magic": b"abcd"}, "magic"),
        ({"magic": b"ni1"}, "pair of files"),
        ({"vox_offset": 0}, "byte 0"),
        ({"vox_offset": 100}, "vox offset 100"),
        ({"vox_offset": np.nan}, "expected"),
        ({"vox_offset": 1e30}, "starting at byte"),
        ({"srow_x": [np.nan, 0, 0, 0]}, "NaN"),
        ({"srow_x": [np.inf, 0, 0, 0]}, "infinity"),
        ({"srow_x": [0, 0, 0, 0], "srow_y": [0, 0, 0, 0]}, "mm"),
        ({"srow_x": [1, 1, 0, 0], "srow_y": [0, 0, 0, 0]}, "independent axes"),
        ({"srow_x": [1e-3, 0, 0, 0]}, "0.001 x 1 x 1 mm"),
        ({"srow_x": [1e30, 0, 0, 0]}, "mm"),
        ({"scl_slope": 1, "scl_inter": np.inf}, "intercept"),
        ({"sform_code": 0, "qform_code": 1, "quatern_b": 5.0}, "expected"),
    ],
)
def test_a_header_that_makes_no_sense_is_refused(
    tmp_path: Path, fields: dict[str, object], said: str, recwarn: pytest.WarningsRecorder
) -> None:
    assert said in fault_of(write(tmp_path / "a.nii", image(1), **fields))
    assert not recwarn.list


def test_slips_that_nibabel_mends_are_mended_in_silence(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write(tmp_path / "a.nii", image(1), pixdim=[1, -1, -1, -1, 1, 1, 1, 1])
    edit(path, bitpix=7, sizeof_hdr=348)
    logging.getLogger("nibabel.global").handlers[0].flush()
    assert np.array_equal(read_header(path).affine, nib.load(path).affine)
    capfd.readouterr()
    caplog.clear()
    read(path)
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


@pytest.mark.parametrize(("qform", "sform"), [(1, 0), (0, 1), (1, 1), (0, 0), (2, 4)])
def test_the_affine_is_the_one_nibabel_gives(tmp_path: Path, qform: int, sform: int) -> None:
    path = write(tmp_path / "a.nii", image(1), _tilt(5) @ LPS)
    edit(path, qform_code=qform, sform_code=sform, srow_x=[-1, 0, 0, 3])
    assert np.array_equal(read_header(path).affine, nib.load(path).affine)


# Files that are damaged or are not what they are called


def test_compression_is_told_by_content_not_by_name(tmp_path: Path) -> None:
    plain = write(tmp_path / "plain.nii", image(1))
    packed_as_plain, plain_as_packed = tmp_path / "a.nii", tmp_path / "b.nii.gz"
    packed_as_plain.write_bytes(gzip.compress(plain.read_bytes()))
    plain_as_packed.write_bytes(plain.read_bytes())
    for path in (packed_as_plain, plain_as_packed):
        assert np.array_equal(read(path), image(1).T)


def test_several_gzip_members_and_what_follows_the_last(tmp_path: Path) -> None:
    raw = write(tmp_path / "plain.nii", image(1)).read_bytes()
    parts = [raw[:100], raw[100:353], b"", raw[353:1000], raw[1000:]]
    path = tmp_path / "a.nii.gz"
    for behind in (b"", b"\0" * 512, b"some words"):
        path.write_bytes(b"".join(map(gzip.compress, parts)) + behind)
        assert np.array_equal(read(path), image(1).T)


def test_a_stream_of_very_many_gzip_members_is_refused(tmp_path: Path) -> None:
    """Each costs a little, so that a small file of millions would take hours."""
    raw = write(tmp_path / "plain.nii", image(1)).read_bytes()
    path = tmp_path / "a.nii.gz"
    start, empty, end = gzip.compress(raw[:400]), gzip.compress(b""), gzip.compress(raw[400:])
    path.write_bytes(start + empty * 1000 + end)
    assert np.array_equal(read(path), image(1).T)
    path.write_bytes(start + empty * (MAX_MEMBERS - 1) + end)
    with pytest.raises(DataFaults, match="more than 20,000 compressed parts"):
        read(path)


@pytest.mark.parametrize("num_extra", [0, 1, 300_000])
def test_a_flipped_bit_anywhere_is_told_from_the_checksum(tmp_path: Path, num_extra: int) -> None:
    raw = write(tmp_path / "plain.nii", image(1)).read_bytes()
    packed = gzip.compress(raw + np.random.default_rng(0).bytes(num_extra), mtime=0)
    path = tmp_path / "a.nii.gz"
    num_refused = 0
    for place in range(len(packed) - 6, 18, -len(packed) // 61):
        damaged = bytearray(packed)
        damaged[place] ^= 1 << (place % 8)
        path.write_bytes(damaged)
        with pytest.raises(DataFaults):
            read(path)
        num_refused += 1
    assert num_refused > 50
    path.write_bytes(packed)
    assert np.array_equal(read(path), image(1).T)


def test_a_damaged_or_cut_stream_asks_for_another_copy(tmp_path: Path) -> None:
    raw = write(tmp_path / "plain.nii", image(1)).read_bytes()
    packed = gzip.compress(raw)
    path = tmp_path / "a.nii.gz"
    for content in (packed[:-1], packed[: len(packed) // 2], packed[:30], packed[:3], raw[:600]):
        path.write_bytes(content)
        said = fault_of(path)
        assert "truncated" in said
        assert "again" in said


def test_what_inflates_without_end_is_not_inflated(tmp_path: Path) -> None:
    raw = write(tmp_path / "plain.nii", image(1)).read_bytes()
    bomb = io.BytesIO()
    with gzip.GzipFile(fileobj=bomb, mode="wb", compresslevel=1, mtime=0) as file:
        file.write(raw)
        for _ in range(900):
            file.write(bytes(1 << 20))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(bomb.getvalue())
    assert "beyond what the header says" in fault_of(path)


@pytest.mark.parametrize("content", [b"", b"\0" * 348, b"x" * 1000, b"\x1f\x8b", b"\x1f\x8b\x08"])
def test_what_is_no_scan_at_all_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.nii"
    path.write_bytes(content)
    assert "expected" in fault_of(path)


def test_what_cannot_be_read_says_why(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, pipe, absent = tmp_path / "a.nii", tmp_path / "b.nii", tmp_path / "c.nii"
    folder.mkdir()
    os.mkfifo(pipe)
    assert "no regular file" in fault_of(folder)
    assert "no regular file" in fault_of(pipe)
    assert "No such file" in fault_of(absent)
    path = write(tmp_path / "d.nii", image(1))
    header = read_header(path)

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(DataFaults, match=r"d\.nii: it cannot be read \(Permission denied\)"):
        read_contents(header)


SIGNALLING_NAN = b"\x01\x00\x81\x7f"  # as float32, whose cast to float64 NumPy warns of


@given(st.binary(min_size=1, max_size=12), st.integers(0, 347))
@example(noise=SIGNALLING_NAN, place=84)  # pixdim
@example(noise=SIGNALLING_NAN, place=108)  # vox_offset
@example(noise=SIGNALLING_NAN, place=112)  # scl_slope
@example(noise=SIGNALLING_NAN, place=256)  # quatern_b
@example(noise=SIGNALLING_NAN, place=280)  # srow_x
def test_no_header_whatever_ends_in_a_traceback_or_a_warning(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, place: int
) -> None:
    path = write(tmp_path_factory.mktemp("noise") / "a.nii", image(1))
    raw = bytearray(path.read_bytes())
    raw[place : place + len(noise)] = noise
    path.write_bytes(raw)
    with warnings.catch_warnings(), contextlib.suppress(DataFaults):
        warnings.simplefilter("error")
        contents = read_contents(read_header(path))
        header = contents.header
        assert read_volume(contents).shape == header.canonical_shape
        written = encode_volume(np.ones(header.canonical_shape, np.uint8), header)
        (path.parent / "mask.nii.gz").write_bytes(written)
        again = read_header(path.parent / "mask.nii.gz")
        assert again.shape == header.shape
        assert np.allclose(again.affine, header.affine, rtol=1e-6, atol=1e-6)


# Writing back


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("codes", ["LPS", "RAS", "PIL", "SAR"])
def test_a_mask_is_written_on_the_grid_of_its_source(
    tmp_path: Path, codes: str, kind: type
) -> None:
    source = reoriented(nib.Nifti1Image(image(1), _tilt(7) @ LPS), codes)
    header = kind.header_class()
    header.set_data_dtype(np.int16)
    header.set_slope_inter(2.0, -3.0)
    made = kind(np.asarray(source.dataobj), source.affine, header)
    made.set_sform(source.affine, code=2)
    made.set_qform(source.affine, code=1)
    nib.save(made, tmp_path / "source.nii.gz")
    like = read_header(tmp_path / "source.nii.gz")
    volume = read(tmp_path / "source.nii.gz")
    marks = (volume > volume.mean()).astype(np.uint8)
    written = encode_volume(marks, like)
    assert written == encode_volume(marks, like)
    (tmp_path / "mask.nii.gz").write_bytes(written)
    again = nib.load(tmp_path / "mask.nii.gz")
    assert isinstance(again, kind)
    original = nib.load(tmp_path / "source.nii.gz")
    assert again.shape == original.shape
    assert again.get_data_dtype() == np.uint8
    assert np.array_equal(again.affine, original.affine)
    for form in ("get_sform", "get_qform"):
        wanted, code = getattr(original, form)(coded=True)
        found, found_code = getattr(again, form)(coded=True)
        assert (found_code, np.array_equal(found, wanted)) == (code, True)
    data = original.get_fdata()
    assert np.array_equal(again.get_fdata(), data > data.mean())
    assert np.array_equal(labels_of(tmp_path / "mask.nii.gz"), marks)


@pytest.mark.parametrize(
    "fields",
    [
        {"qform_code": 0, "sform_code": 0},
        {"qform_code": 1, "sform_code": 0},
        {"pixdim": [1, -1, -1, -1, 1, 1, 1, 1]},
        {"dim": [4, *SHAPE, 1, 1, 1, 1]},
        {"sizeof_hdr": 300, "vox_offset": 352.5, "sform_code": 77},
        {"scl_slope": 0.5, "cal_max": 900, "intent_code": 1005, "descrip": b"other"},
    ],
)
def test_odd_headers_survive_the_way_back(
    tmp_path: Path, fields: dict[str, object], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "a.nii", image(1), **fields)
    header = read_header(path)
    out = tmp_path / "mask.nii.gz"
    out.write_bytes(encode_volume(np.ones(header.canonical_shape, np.uint8), header))
    assert not caplog.records
    again = nib.load(out)
    assert np.array_equal(again.affine, nib.load(path).affine)
    assert again.shape == SHAPE
    assert (again.get_fdata() == 1).all()


def test_a_big_endian_source_gets_a_mask_on_its_grid(tmp_path: Path) -> None:
    header = nib.Nifti1Header(endianness=">")
    header.set_data_dtype(np.int16)
    nib.save(nib.Nifti1Image(image(1), LPS, header), tmp_path / "a.nii")
    like = read_header(tmp_path / "a.nii")
    out = tmp_path / "mask.nii.gz"
    out.write_bytes(encode_volume(read(tmp_path / "a.nii").astype(np.uint8), like))
    assert np.array_equal(nib.load(out).get_fdata(), image(1).astype(np.uint8))
    assert np.array_equal(nib.load(out).affine, LPS)


def test_a_volume_of_another_shape_is_a_mistake_of_the_caller(tmp_path: Path) -> None:
    header = read_header(write(tmp_path / "a.nii", image(1)))
    with pytest.raises(ValueError, match="grid"):
        encode_volume(np.zeros(SHAPE, np.uint8), header)


# Real files


def test_the_affine_of_a_mask_without_sform_is_that_of_its_scans(real_data: Path) -> None:
    folder = real_data / "brats2023" / "BraTS-GLI-00000-000"
    headers = [read_header(path) for path in sorted(folder.glob("*.nii*"))]
    assert len(headers) == 5
    for header in headers:
        assert np.allclose(header.affine, headers[0].affine, atol=1e-3)
        assert header.codes == "LPS"
    (seg,) = (header for header in headers if "seg" in header.path.name)
    assert np.abs(nib.load(seg.path).header.get_sform() - headers[0].affine).max() > 200
