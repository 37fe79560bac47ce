# SPDX-License-Identifier: Apache-2.0
"""What is done already is known by its stamp."""

import pytest

from vitforge.base.stamps import STAMP, filling, key


def test_keys_say_what_differs():
    assert key({"a": 1, "b": [2]}) == key({"b": [2], "a": 1})
    assert len({key(item) for item in ({"a": 1}, {"a": "1"}, ["a", 1], None)}) == 4
    with pytest.raises(TypeError):
        key({"a": object()})


def test_a_folder_is_filled_once(tmp_path):
    folder = tmp_path / "deep" / "folder"
    for inputs, expected in ((1, True), (1, False), (2, True), (2, False)):
        with filling(folder, inputs) as missing:
            assert missing is expected
            assert not missing or list(folder.iterdir()) == []
            (folder / "file").write_text("", encoding="utf-8")
        assert sorted(path.name for path in folder.iterdir()) == [STAMP, "file"]


def test_what_was_not_filled_to_the_end_has_no_stamp(tmp_path):
    with pytest.raises(OSError, match="full"), filling(tmp_path / "f", 1):
        raise OSError("full")
    with filling(tmp_path / "f", 1) as missing:
        assert missing
