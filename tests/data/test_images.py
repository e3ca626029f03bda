import cv2
import numpy as np
import pytest
from PIL import Image

from mlcv.data.images import find_unreadable, read_image
from mlcv.errors import DataError
from tests.tiny_sets import write_image


def test_colours_come_as_rgb(tmp_path):
    pixels = np.zeros((10, 12, 3), np.uint8)
    pixels[..., 0] = 255
    Image.fromarray(pixels).save(tmp_path / "red.png")
    assert (read_image(tmp_path / "red.png") == pixels).all()


def test_grey_images_get_three_equal_channels_and_16_bits_become_8(tmp_path):
    cv2.imwrite(str(tmp_path / "grey.png"), np.full((5, 5), 257 * 100, np.uint16))
    image = read_image(tmp_path / "grey.png")
    assert image.shape == (5, 5, 3)
    assert image.dtype == np.uint8
    assert (image == 100).all()


def test_twelve_bits_in_sixteen_keep_their_upper_eight(tmp_path):
    values = np.array([[0, 16, 2048], [4095, 3000, 15]], np.uint16)
    cv2.imwrite(str(tmp_path / "film.png"), values)
    assert read_image(tmp_path / "film.png")[..., 0].tolist() == (values >> 4).tolist()
    cv2.imwrite(str(tmp_path / "colour.png"), np.full((2, 2, 3), (256 * 7, 256 * 8, 256 * 255), np.uint16))
    assert read_image(tmp_path / "colour.png")[0, 0].tolist() == [255, 8, 7]


@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_one_channel_of_a_grey_image_is_what_three_would_be(tmp_path, suffix):
    path = tmp_path / f"grey{suffix}"
    cv2.imwrite(str(path), np.random.default_rng(0).integers(0, 256, (300, 200), dtype=np.uint8))
    for min_side in (None, 40):
        grey, colour = (read_image(path, min_side, grey=kind) for kind in (True, False))
        assert grey.shape == (*colour.shape[:2], 1)
        assert (grey == colour).all()


def test_decodes_as_pillow_does(tmp_path):
    path = write_image(tmp_path / "a.jpg", (120, 90))
    ours, theirs = read_image(path).astype(int), np.array(Image.open(path).convert("RGB")).astype(int)
    assert abs(ours - theirs).mean() < 1.5  # decoders differ in how they upsample colour


@pytest.mark.parametrize(("min_side", "side"), [(None, 400), (300, 400), (200, 200), (101, 200), (100, 100), (40, 50)])
def test_a_large_jpeg_is_decoded_no_larger_than_needed(tmp_path, min_side, side):
    path = write_image(tmp_path / "a.jpg", (400, 600))
    assert min(read_image(path, min_side).shape[:2]) == side


def test_rotation_in_exif_is_applied(tmp_path):
    image = Image.fromarray(np.zeros((20, 40, 3), np.uint8))
    exif = image.getexif()
    exif[0x0112] = 6
    image.save(tmp_path / "turned.jpg", exif=exif)
    assert read_image(tmp_path / "turned.jpg").shape == (40, 20, 3)


@pytest.mark.parametrize("keep", [0.98, 0.5, 0.1])
@pytest.mark.parametrize("suffix", [".jpg", ".png"])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path, keep, suffix):
    path = write_image(tmp_path / f"a{suffix}", (64, 64))
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * keep)])
    with pytest.raises(DataError, match=f"a{suffix}: .*replace the file, or set data.on_error to skip"):
        read_image(path)


def test_bytes_after_the_end_are_allowed(tmp_path):
    path = write_image(tmp_path / "a.jpg")
    path.write_bytes(path.read_bytes() + b"camera notes")
    assert read_image(path).shape == (48, 64, 3)


@pytest.mark.parametrize(("content", "problem"), [(b"", "empty"), (b"not an image", "not an image")])
def test_what_is_no_image_is_an_error(tmp_path, content, problem):
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(DataError, match=problem):
        read_image(tmp_path / "a.jpg")


def test_no_jpeg_is_decoded_scan_after_scan_without_end(tmp_path):
    """Each scan of a progressive file is a pass over all pixels, and takes a few bytes."""
    path = tmp_path / "a.jpg"
    Image.new("RGB", (64, 64), (200, 10, 10)).save(path, progressive=True)
    data = path.read_bytes()
    assert read_image(path).shape == (64, 64, 3)
    last = data.rindex(b"\xff\xda")
    path.write_bytes(data[:-2] + data[last:-2] * 200 + data[-2:])
    with pytest.raises(DataError, match="a.jpg: not an image that can be decoded .*more than 100 scans"):
        read_image(path)


def test_a_missing_file_is_an_error(tmp_path):
    with pytest.raises(DataError, match=r"nowhere.jpg: cannot be read \(No such file"):
        read_image(tmp_path / "nowhere.jpg")


def test_the_check_finds_every_bad_file_by_position(tmp_path):
    paths = [write_image(tmp_path / f"{n}.jpg", seed=n) for n in range(5)]
    paths[1].write_bytes(b"")
    paths[3] = tmp_path / "absent.jpg"
    bad = find_unreadable(paths)
    assert sorted(bad) == [1, 3]
    assert "absent.jpg" in str(bad[3])
