"""Image folders: layouts, modes, the cache, and what is refused."""

from __future__ import annotations

import os

import numpy as np
import pytest
from PIL import Image

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data
from crossreg.services.data import images as images_module
from crossreg.services.data.decode import decode


def load(folder, progress=None, **config):
    return load_data(DataConfig(name=str(folder), **config), progress)


def as_set(*parts):
    return {image.tobytes() for part in parts for image in part}


def test_class_folders_are_split(tmp_path, write_images):
    images = write_images(tmp_path / "pets", {"cat": 20, "dog": 20})
    data = load(tmp_path / "pets")
    assert data.classes == ("cat", "dog")
    assert data.input_shape == (3, 6, 6)
    assert (len(data.train), len(data.reg), len(data.test)) == (24, 8, 8)
    assert as_set(data.train.x, data.reg.x, data.test.x) == as_set(images)
    dogs = as_set(images[20:])
    for split in (data.train, data.reg, data.test):
        assert [image.tobytes() in dogs for image in split.x] == (split.y == 1).tolist()


@pytest.mark.parametrize("name", ["test", "val"])
def test_the_test_folder_is_the_test_split(tmp_path, write_images, name):
    train = write_images(tmp_path / "train", {"cat": 10, "dog": 10})
    test = write_images(tmp_path / name, {"cat": 2, "dog": 3}, seed=1)
    data = load(tmp_path)
    np.testing.assert_array_equal(data.test.x, test)
    assert data.test.y.tolist() == [0, 0, 1, 1, 1]
    assert as_set(data.train.x, data.reg.x) == as_set(train)


def test_train_folder_alone_is_split(tmp_path, write_images):
    write_images(tmp_path / "train", {"cat": 10, "dog": 10})
    assert load(tmp_path).classes == ("cat", "dog")


def test_a_class_may_be_called_train(tmp_path, write_images):
    write_images(tmp_path, {"bus": 10, "train": 10})
    assert load(tmp_path).classes == ("bus", "train")


def test_files_below_a_class_folder_count_and_other_files_do_not(tmp_path, write_images):
    write_images(tmp_path / "pets", {"cat/a": 4, "cat/b": 4, "dog": 8})
    (tmp_path / "pets/dog/notes.txt").write_text("not an image")
    (tmp_path / "pets/dog/.hidden.png").write_text("not an image")
    data = load(tmp_path / "pets")
    assert len(data.train) + len(data.reg) + len(data.test) == 16


def test_grey_images_keep_one_channel(tmp_path, write_images):
    images = write_images(tmp_path / "pets", {"cat": 8, "dog": 8}, grey=True)
    data = load(tmp_path / "pets")
    assert data.input_shape == (1, 6, 6)
    assert as_set(data.train.x, data.reg.x, data.test.x) == as_set(images)


def test_one_colour_image_makes_all_rgb(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr("crossreg.services.data.decode.CHUNK", 4)  # so that some chunks are all grey
    grey = write_images(tmp_path / "pets", {"cat": 8, "dog": 8}, grey=True)
    Image.new("RGB", (6, 6), (255, 0, 1)).save(tmp_path / "pets/dog/007.png")
    data = load(tmp_path / "pets")
    found = as_set(data.train.x, data.reg.x, data.test.x)
    red = np.broadcast_to(np.array([255, 0, 1], np.uint8)[:, None, None], (3, 6, 6))
    assert found == as_set(np.repeat(grey[:-1], 3, axis=1), [red])


@pytest.mark.parametrize(
    ("mode", "suffix", "expected"),
    [
        ("1", "png", [255]),
        ("P", "gif", [200, 10, 10]),
        ("RGBA", "png", [200, 10, 10]),
        ("CMYK", "tif", [200, 10, 10]),
        ("RGB", "bmp", [200, 10, 10]),
        ("RGB", "webp", [200, 10, 10]),
    ],
)
def test_formats_and_modes(tmp_path, mode, suffix, expected):
    path = tmp_path / f"image.{suffix}"
    image = Image.new("RGB", (4, 3), (255, 255, 255) if mode == "1" else (200, 10, 10))
    # convert("P") would round to the web palette.
    image = image.quantize() if mode == "P" else image.convert(mode)
    image.save(path, **({"lossless": True} if suffix == "webp" else {}))
    decoded = decode([str(path)])
    assert decoded.shape == (1, len(expected), 3, 4)
    assert decoded[0, :, 0, 0].tolist() == expected


def test_an_image_with_the_wrong_ending_is_still_read(tmp_path):
    Image.new("L", (4, 4), 7).save(tmp_path / "a.jpg", format="PNG")
    assert decode([str(tmp_path / "a.jpg")]).tolist() == [[[[7] * 4] * 4]]


def test_second_load_comes_from_the_cache(tmp_path, write_images, monkeypatch):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    first = load(tmp_path / "pets")
    monkeypatch.setattr(images_module, "decode", None)  # calling it would fail
    calls = []
    second = load(tmp_path / "pets", lambda done, total: calls.append((done, total)))
    assert second.fingerprint == first.fingerprint
    assert calls == [(20, 20)]


def test_a_changed_image_is_decoded_again(tmp_path, write_images):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    first = load(tmp_path / "pets")
    file = tmp_path / "pets/cat/003.png"
    pixels = np.array(Image.open(file))
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    os.utime(file, ns=(0, 123_456_789))
    assert load(tmp_path / "pets").fingerprint != first.fingerprint


def test_two_folders_alike_in_names_sizes_and_times_are_not_confused(tmp_path, write_images):
    for name, seed in (("one", 0), ("two", 1)):
        for index, image in enumerate(write_images(tmp_path / "png" / name, {"a": 10, "b": 10}, seed=seed)):
            file = tmp_path / name / "ab"[index // 10] / f"{index}.bmp"
            file.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(np.ascontiguousarray(image.transpose(1, 2, 0))).save(file)
            os.utime(file, ns=(0, 0))
    assert load(tmp_path / "one").fingerprint != load(tmp_path / "two").fingerprint


def flip_a_pixel(content):
    content[-40] ^= 1  # the last 32 bytes are the digest
    return content


@pytest.mark.parametrize(
    "damage", [flip_a_pixel, lambda content: content[:-7], lambda content: content[:50], lambda content: b""]
)
def test_a_damaged_cache_is_ignored_and_replaced(tmp_path, write_images, cache, damage):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    first = load(tmp_path / "pets")
    (file,) = cache.iterdir()
    intact = file.read_bytes()
    file.write_bytes(damage(bytearray(intact)))
    assert load(tmp_path / "pets").fingerprint == first.fingerprint
    assert [entry.read_bytes() for entry in cache.iterdir()] == [intact]


def test_an_unwritable_cache_is_ignored(tmp_path, write_images, monkeypatch):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    (tmp_path / "file").write_text("a file, not a folder")
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "file"))
    assert load(tmp_path / "pets").fingerprint == load(tmp_path / "pets").fingerprint


def test_a_full_disk_leaves_no_partial_cache(tmp_path, write_images, cache, monkeypatch):
    def no_space(*args, **kwargs):
        raise OSError(28, "No space left on device")

    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    monkeypatch.setattr(np, "save", no_space)
    load(tmp_path / "pets")
    assert list(cache.iterdir()) == []


def test_progress_counts_to_the_total_once(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr("crossreg.services.data.decode.CHUNK", 8)
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    calls = []
    load(tmp_path / "pets", lambda done, total: calls.append((done, total)))
    assert calls == [(8, 20), (16, 20), (20, 20)]


def test_the_first_image_of_another_size_is_named(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr("crossreg.services.data.decode.CHUNK", 2)
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    for name in ("cat/007.png", "dog/001.png"):
        Image.new("RGB", (5, 9)).save(tmp_path / "pets" / name)
    with pytest.raises(UserError) as error:
        load(tmp_path / "pets")
    for part in ("cat/007.png", "5x9", "cat/000.png", "6x6"):
        assert part in str(error.value)


@pytest.mark.parametrize("size", [0, 20, 70])
def test_an_unreadable_image_is_named(tmp_path, write_images, size):
    write_images(tmp_path / "pets", {"cat": 4, "dog": 4})
    file = tmp_path / "pets/dog/002.png"
    file.write_bytes(file.read_bytes()[:size])
    with pytest.raises(UserError, match=r"dog/002\.png: cannot be read as an image"):
        load(tmp_path / "pets")


def test_deep_images_are_refused(tmp_path, write_images):
    write_images(tmp_path / "pets", {"cat": 4, "dog": 4}, grey=True)
    Image.fromarray(np.full((6, 6), 1000, np.uint16)).save(tmp_path / "pets/dog/002.png")
    with pytest.raises(UserError, match=r"dog/002\.png: has more than 8 bits per channel \(mode I;16"):
        load(tmp_path / "pets")


@pytest.mark.parametrize(
    ("train", "test", "message"),
    [
        ({"cat": 4, "dog": 4}, {"cat": 1, "fox": 1}, "class 'fox' of the test split is not in training"),
        ({"cat": 4, "dog": 0}, {"cat": 1}, "dog: the class folder holds no image"),
        ({"cat": 4}, {"cat": 1}, "'cat' is the only class"),
        ({"cat": 4, "dog": 1}, {"cat": 1}, "class 'dog' has 1 training example"),
    ],
)
def test_classes_that_do_not_work(tmp_path, write_images, train, test, message):
    for folder, classes in (("train", train), ("test", test)):
        write_images(tmp_path / folder, classes)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_an_empty_folder_is_refused(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no class folders"):
        load(tmp_path / "empty")


def test_a_dangling_link_is_named(tmp_path, write_images):
    write_images(tmp_path / "pets", {"cat": 4, "dog": 4})
    (tmp_path / "pets/cat/link.png").symlink_to(tmp_path / "gone.png")
    with pytest.raises(UserError, match=r"cat/link\.png: the file cannot be read"):
        load(tmp_path / "pets")


@pytest.mark.parametrize(
    ("train", "test"), [("Training", "Testing"), ("train", "valid"), ("TRAIN", "Test"), ("train", "dev")]
)
def test_split_folders_by_their_usual_names(tmp_path, write_images, train, test):
    write_images(tmp_path / train, {"cat": 10, "dog": 10})
    write_images(tmp_path / test, {"cat": 5, "dog": 5}, seed=1)
    data = load(tmp_path)
    assert data.classes == ("cat", "dog")
    assert len(data.test) == 10


def test_valid_beside_test_is_the_regularization_split(tmp_path, write_images):
    write_images(tmp_path / "train", {"cat": 20, "dog": 20})
    valid = write_images(tmp_path / "valid", {"cat": 3, "dog": 4}, seed=1)
    write_images(tmp_path / "test", {"cat": 5, "dog": 5}, seed=2)
    data = load(tmp_path)
    assert (len(data.train), len(data.reg), len(data.test)) == (40, 7, 10)
    assert as_set(data.reg.x) == as_set(valid)
    assert any("validation examples are the regularization split" in note for note in data.notes)
    drawn = load(tmp_path, reg_share=0.2)
    assert any("validation examples are training examples like the others" in note for note in drawn.notes)
    assert (len(drawn.train), len(drawn.reg)) == (38, 9)
    assert len(load(tmp_path, reg_share=0).train) == 47


@pytest.mark.parametrize(
    ("folders", "message"),
    [
        (("val", "valid", "train"), "val and valid are for the same split"),
        (("valid", "test"), "no train folder beside"),
    ],
)
def test_split_folders_that_do_not_work(tmp_path, write_images, folders, message):
    for name in folders:
        write_images(tmp_path / name, {"cat": 4, "dog": 4})
    with pytest.raises(UserError, match=message):
        load(tmp_path)


def test_folders_beside_the_splits_are_said(tmp_path, write_images):
    write_images(tmp_path / "train", {"cat": 10, "dog": 10})
    write_images(tmp_path / "extra", {"cat": 10})
    assert any("not read: extra" in note for note in load(tmp_path).notes)


@pytest.mark.parametrize("hidden", [".ipynb_checkpoints", "__MACOSX", "deep/.git"])
def test_hidden_folders_hold_no_data(tmp_path, write_images, hidden):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    copies = tmp_path / "pets" / "cat" / hidden
    copies.mkdir(parents=True)
    for file in list((tmp_path / "pets" / "cat").glob("*.png")):
        (copies / file.name).write_bytes(file.read_bytes())
    data = load(tmp_path / "pets")
    assert len(data.train) + len(data.reg) + len(data.test) == 20
    assert not as_set(data.test.x) & as_set(data.train.x, data.reg.x)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_as_their_tag_says(tmp_path, orientation):
    from PIL import ImageOps

    upright = np.zeros((16, 24), np.uint8)
    upright[:8, :8] = 255
    exif = Image.Exif()
    exif[0x0112] = orientation
    # how a camera that was held so stores it: what turning gives upright
    back = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}
    tagged = Image.Exif()
    tagged[0x0112] = back.get(orientation, 1)
    picture = Image.fromarray(upright)
    picture.info["exif"] = tagged.tobytes()
    stored = ImageOps.exif_transpose(picture)
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for index in range(10):
            stored.save(tmp_path / name / f"{index}.png", exif=exif)
    data = load(tmp_path)
    assert data.input_shape == (1, 16, 24)
    np.testing.assert_array_equal(data.train.x[0, 0], upright)


def test_files_that_are_no_images_are_said(tmp_path, write_images):
    write_images(tmp_path / "pets", {"cat": 10, "dog": 10})
    for index in range(7):
        (tmp_path / "pets/cat" / f"{index}.heic").write_bytes(b"x")
    (tmp_path / "pets/cat/.DS_Store").write_bytes(b"x")
    data = load(tmp_path / "pets")
    assert data.skipped == {".heic": 7}
    assert any("7 files are no images that can be read, and were skipped: 7 .heic" in note for note in data.notes)


def test_images_of_several_sizes_are_refused_or_brought_to_one(tmp_path, write_images):
    pets = tmp_path / "pets"
    write_images(pets, {"cat": 10}, size=6)
    write_images(pets, {"dog": 10}, size=9)
    with pytest.raises(UserError, match="all images must have one size, or are brought to one with --image-size 6"):
        load(pets)
    data = load(pets, image_size=5)
    assert data.input_shape == (3, 5, 5)
    assert data.inputs.resize
    assert load(pets, image_size=4).input_shape == (3, 4, 4)  # not from the cache


def test_resizing_covers_the_size_and_cuts_the_middle(tmp_path):
    wide = np.zeros((8, 24), np.uint8)
    wide[:, 8:16] = 200
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for index in range(10):
            Image.fromarray(wide).save(tmp_path / name / f"{index}.png")
    assert (load(tmp_path, image_size=8).train.x == 200).all()
