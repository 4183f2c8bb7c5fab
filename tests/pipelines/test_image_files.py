from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from pipelines.errors import DataError
from pipelines.image_files import (
    PATH_COLUMN,
    image_column,
    image_hashes,
    with_image_bytes,
    with_images,
)
from pipelines.image_references import file_contents, image_headers, image_places, is_image_file
from pipelines.row_hash import hash_rows
from pipelines.sources import Origin, SourceTable, open_source


def png(value: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.full((4, 4), value, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def written(folder: Path, images: dict[str, bytes]) -> Path:
    for name, data in images.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read_large(folder: Path) -> SourceTable:
    return with_images(open_source(folder).read(), kinds={}, in_memory=100)


def read(folder: Path, **kinds: str) -> SourceTable:
    return with_images(open_source(folder).read(), kinds=kinds)


def many(count: int = 120) -> dict[str, bytes]:
    return {f"{'ab'[number % 2]}/{number:03d}.png": png(number) for number in range(count)}


def test_a_folder_becomes_bytes_and_labels(tmp_path: Path) -> None:
    found = read(written(tmp_path, many(6))).table
    assert found.column_names == ["image", "label", PATH_COLUMN]
    assert found.column("label").to_pylist() == ["a", "a", "a", "b", "b", "b"]
    assert found.column("image")[0].as_py() == png(0)
    assert found.column(PATH_COLUMN)[0].as_py() == "a/000.png"
    assert image_column(found) == "image"


def test_classes_in_folders_of_folders_are_their_paths(tmp_path: Path) -> None:
    found = read(written(tmp_path, {"cats/tabby/1.png": png(), "cats/persian/1.png": png(1), "dogs/1.png": png(2)}))
    assert sorted(found.table.column("label").to_pylist()) == ["cats/persian", "cats/tabby", "dogs"]


def test_images_without_folders_have_no_label(tmp_path: Path) -> None:
    assert "label" not in read(written(tmp_path, {"1.png": png(), "2.png": png(1)})).table.column_names


def test_images_beside_the_classes_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"but 'loose.png' lies beside the classes; move or remove what lies there"):
        read(written(tmp_path, {**many(6), "loose.png": png()}))


def test_an_empty_class_folder_and_other_files_are_told(tmp_path: Path) -> None:
    written(tmp_path, {**many(6), "a/notes.md": b"x", ".hidden/1.png": png()})
    (tmp_path / "c").mkdir()
    notes = " ".join(read(tmp_path).notes)
    assert "Without an image, and so no class: 'c'." in notes
    assert "1 files that are no images are left out." in notes


def test_a_folder_with_a_table_is_a_table(tmp_path: Path) -> None:
    written(tmp_path, many(4))
    (tmp_path / "table.csv").write_text("photo,price\na/000.png,1.5\nb/001.png,2.5\n")
    found = read(tmp_path / "table.csv").table
    assert found.column("photo")[1].as_py() == png(1)
    assert found.column("price").to_pylist() == [1.5, 2.5]
    assert "photo" in open_source(tmp_path).read().table.column_names


def test_what_the_user_says_of_a_column_holds(tmp_path: Path) -> None:
    written(tmp_path, {"one": png(1)})
    (tmp_path / "table.csv").write_text("photo,price\none,1.5\n")
    assert read(tmp_path / "table.csv").table.column("photo")[0].as_py() == "one"
    assert read(tmp_path / "table.csv", photo="image").table.column("photo")[0].as_py() == png(1)
    with pytest.raises(DataError, match=r"Column 'price' is double, which cannot be used as image: expected bytes"):
        read(tmp_path / "table.csv", price="image")


def test_bytes_and_the_structs_of_other_libraries_are_images() -> None:
    table = pa.table({"photo": pa.array([png(1), png(2)], pa.binary()), "price": [1.0, 2.0]})
    assert image_column(read_table(table)) == "photo"
    struct = pa.array([{"bytes": png(1), "path": None}, {"bytes": png(2), "path": None}])
    assert read_table(pa.table({"photo": struct})).column("photo").to_pylist() == [png(1), png(2)]


def test_the_names_of_files_beside_their_bytes_are_left_out() -> None:
    photos = pa.array([png(1), png(2)], pa.binary())
    table = pa.table({"filename": ["cat/1.png", "dog/2.png"], "photo": photos, "price": [1.0, 2.0]})
    found = with_images(open_source(table).read(), kinds={})
    assert found.table.column_names == ["photo", "price", PATH_COLUMN]
    assert "Left out: 'filename', which names files of images that are there." in found.notes


def read_table(table: pa.Table) -> pa.Table:
    return with_images(open_source(table).read(), kinds={}).table


def test_two_columns_of_images_are_refused() -> None:
    table = pa.table({"front": pa.array([png()], pa.binary()), "back": pa.array([png()], pa.binary())})
    with pytest.raises(DataError, match=r"one column of images, received 'front', 'back'; drop the others"):
        read_table(table)


@pytest.mark.parametrize(("data", "reason"), [(b"", "the file is empty"), (png()[:-9], "the file is cut off")])
def test_few_broken_images_are_left_out_and_told(tmp_path: Path, data: bytes, reason: str) -> None:
    found = read(written(tmp_path, {**many(), "a/broken.png": data}))
    assert found.table.num_rows == 120
    assert f"1 of 121 images cannot be decoded and are left out: 'a/broken.png': {reason}." in found.notes


def test_many_broken_images_are_an_error_that_names_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"but 1 of 41 in column 'image' cannot, such as 'a/broken.png': the file"):
        read(written(tmp_path, {**many(40), "a/broken.png": b""}))


def test_an_image_that_a_table_names_and_that_is_not_there_is_broken(tmp_path: Path) -> None:
    (tmp_path / "table.csv").write_text("photo,price\nhere.png,1.5\ngone.png,2.5\n")
    written(tmp_path, {"here.png": png()})
    with pytest.raises(DataError, match=r"1 of 2 in column 'photo' cannot, such as 'gone.png': there is no such file"):
        read(tmp_path / "table.csv")


@pytest.mark.parametrize("text", ["../secret.png", "sub/../../secret.png", "link.png", "/etc/secret.png"])
def test_paths_that_leave_the_folder_are_refused(tmp_path: Path, text: str) -> None:
    written(tmp_path, {"secret.png": png(), "data/inside.png": png()})
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret.png")
    (tmp_path / "data" / "table.csv").write_text(f"photo,price\ninside.png,1.5\n{text},2.5\n")
    with pytest.raises(DataError, match=r"in row 2 of column 'photo' leads out of it; copy the images into the folder"):
        read(tmp_path / "data" / "table.csv")


def test_what_is_no_path_and_links_in_a_circle_are_broken(tmp_path: Path) -> None:
    written(tmp_path, many(240))
    (tmp_path / "circle.png").symlink_to(tmp_path / "circle.png")
    paths = [*sorted(many(240)), "a/\0.png", "circle.png"]
    table = pa.table({"photo": paths, "y": [0.0, 1.0] * 121})
    source = SourceTable(table=table, description="", fingerprint="", folder=str(tmp_path))
    found = with_images(source, kinds={})
    assert found.table.num_rows == 240
    assert "it is no path; 'circle.png': it cannot be read: Too many levels of symbolic links" in found.notes[0]


def test_links_in_a_folder_of_images_do_not_lead_out(tmp_path: Path) -> None:
    written(tmp_path, {"secret.png": png()} | {f"data/{name}": data for name, data in many(4).items()})
    (tmp_path / "data" / "a" / "link.png").symlink_to(tmp_path / "secret.png")
    with pytest.raises(DataError, match=r"'a/link\.png' in row 3 of column 'image' leads out of it"):
        read(tmp_path / "data")


def test_the_fingerprint_is_that_of_the_pixels_too(tmp_path: Path) -> None:
    before = read(written(tmp_path, many(4))).fingerprint
    assert read(tmp_path).fingerprint == before
    (tmp_path / "a" / "000.png").write_bytes(png(200))
    assert read(tmp_path).fingerprint != before


def test_a_model_leaves_no_row_out(tmp_path: Path) -> None:
    written(tmp_path, {"1.png": png(), "2.png": b""})
    table = pa.table({"photo": ["1.png", "2.png"]})
    with pytest.raises(DataError, match=r"1 of 2 cannot, the first '2.png' in row 2: the file is empty; mend"):
        with_image_bytes(table, "photo", folder=str(tmp_path))
    found = with_image_bytes(table.slice(0, 1), "photo", folder=str(tmp_path))
    assert found.column("photo").to_pylist() == [png()]


def test_images_beyond_the_limit_stay_in_their_files_and_are_the_same_rows(tmp_path: Path) -> None:
    written(tmp_path, {**many(), "a/zz.png": b""})
    held, large = read(tmp_path), read_large(tmp_path)
    assert is_image_file(large.table.schema.field("image").type)
    assert (large.fingerprint, large.notes) == (held.fingerprint, held.notes)
    assert image_column(large.table) == "image"
    images, files = held.table.column("image"), large.table.column("image")
    assert image_headers(files) == image_headers(images)
    np.testing.assert_array_equal(image_hashes(large.table, "image"), image_hashes(held.table, "image"))
    np.testing.assert_array_equal(*(hash_rows(one.table, columns=["image", "label"]) for one in (held, large)))
    assert file_contents(files.slice(3, 2)).tolist() == images.slice(3, 2).to_pylist()
    assert image_places(files)[0] == str(tmp_path / "a" / "000.png").encode()
    assert files.nbytes < 200 * len(files)


def test_an_image_that_is_gone_when_it_is_read_is_told(tmp_path: Path) -> None:
    found = read_large(written(tmp_path, many())).table
    (tmp_path / "a" / "000.png").unlink()
    with pytest.raises(DataError, match=r"a/000.png', which the run reads from its file, but .* put it back, or start"):
        file_contents(found.column("image").slice(0, 1))


def test_an_animation_is_told(tmp_path: Path) -> None:
    frames = [Image.fromarray(np.full((4, 4), level, np.uint8)) for level in (10, 200)]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:])
    notes = read(written(tmp_path, {**many(6), "a/moving.gif": buffer.getvalue()})).notes
    assert "'a/moving.gif' is an animation; its first frame counts." in notes


def test_a_folder_in_a_format_that_cannot_be_decoded_says_what_to_do(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(np.zeros((4, 4), np.uint8)).save(buffer, "WEBP")
    written(tmp_path, {f"{'ab'[number % 2]}/{number}.webp": buffer.getvalue() for number in range(6)})
    message = r"6 of 6 in column 'image' cannot, such as 'a/0.webp', 'a/2.webp', 'a/4.webp': it is WebP, .* convert it"
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_a_dataset_that_tfds_itself_wrote_has_its_images(tmp_path: Path) -> None:
    import tensorflow as tf
    import tensorflow_datasets as tfds

    pixels = np.random.default_rng(0).integers(0, 256, (12, 4, 4, 1), dtype=np.uint8)
    rows = {"image": pixels, "file": [f"{row}.png" for row in range(12)], "label": [row % 3 for row in range(12)]}
    features = tfds.features.FeaturesDict(
        {
            "image": tfds.features.Image(shape=(4, 4, 1)),
            "file": tfds.features.Text(),
            "label": tfds.features.ClassLabel(names=["zero", "one", "two"]),
        }
    )
    tfds.dataset_builders.store_as_tfds_dataset(
        name="scans", version="1.0.0", data_dir=tmp_path, features=features, disable_shuffling=True,
        split_datasets={"train": tf.data.Dataset.from_tensor_slices(rows)},
    )  # fmt: skip
    found = with_images(open_source(Origin(places=("tfds:scans",), data_dir=str(tmp_path))).read(), kinds={})
    assert image_column(found.table) == "image"
    # Names of files whose bytes stand beside them are no second column of images.
    assert "file" not in found.table.column_names
    assert found.table.column("label").to_pylist() == ["zero", "one", "two"] * 4
    decoded = [np.asarray(Image.open(io.BytesIO(value.as_py()))) for value in found.table.column("image")]
    np.testing.assert_array_equal(decoded, pixels[..., 0])
