from __future__ import annotations

from pathlib import Path

import pytest

from search_spaces.catalogue import (
    FEW_IMAGES,
    SPACES,
    SpaceError,
    check_space_name,
    check_space_suits,
    load_attribute,
    space_warning,
)


@pytest.mark.parametrize("name", [*SPACES, "my_module:build", "package.module:Space"])
def test_names_of_spaces_and_references_are_accepted(name: str) -> None:
    assert check_space_name(name) == name


def test_an_unknown_space_names_the_nearest() -> None:
    with pytest.raises(SpaceError, match=r"unknown space 'resnt' \(did you mean 'resnet'\?\): expected one of ad"):
        check_space_name("resnt")


def test_a_space_for_images_refuses_a_table_and_the_other_way_round() -> None:
    with pytest.raises(SpaceError, match=r"'cnn' builds networks for images, and the data is a table: .*mlp.*tabular"):
        check_space_suits("cnn", has_images=False)
    with pytest.raises(SpaceError, match=r"'mlp' builds networks for a table, and the data is images: .*cnn"):
        check_space_suits("mlp", has_images=True)
    assert check_space_suits("cnn", has_images=True) == "cnn"
    assert check_space_suits("my_module:build", has_images=True) == "my_module:build"


def test_transformers_of_patches_are_doubted_on_few_images() -> None:
    assert "1,200 training images are few" in space_warning("vit", num_rows=1_200)
    assert "--space cnn" in space_warning("mixer", num_rows=1_200)
    assert space_warning("vit", num_rows=FEW_IMAGES) == space_warning("cnn", num_rows=10) == ""


@pytest.mark.parametrize("name", ["", ":", "module:", ":build", "my-module:build", "a:b:c"])
def test_a_malformed_reference_is_refused(name: str) -> None:
    with pytest.raises(SpaceError, match=r"unknown space .*or your own build function as module:function"):
        check_space_name(name)


def test_every_space_of_the_catalogue_can_be_imported() -> None:
    for reference in SPACES.values():
        assert callable(load_attribute(reference))


def test_a_module_that_is_not_there_is_told() -> None:
    with pytest.raises(SpaceError, match=r"the space module 'no_such_module': ModuleNotFoundError: .*folder"):
        load_attribute("no_such_module:build")


def test_a_module_that_fails_at_import_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "failing_space_module.py").write_text("1 / 0\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpaceError, match=r"'failing_space_module': ZeroDivisionError: division by zero"):
        load_attribute("failing_space_module:build")


def test_a_missing_attribute_names_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "space_module_with_build.py").write_text("def build_model(hp): ...\n")
    monkeypatch.syspath_prepend(tmp_path)
    with pytest.raises(SpaceError, match=r"has no 'buld_model' \(did you mean 'build_model'\?\)"):
        load_attribute("space_module_with_build:buld_model")
