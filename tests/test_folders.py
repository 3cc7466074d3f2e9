"""Files of a folder, through links."""

from birdlib import folders


def names(top):
    return sorted(path.relative_to(top).as_posix() for path in folders.files(top))


def test_files_of_all_folders_and_of_those_that_are_linked(tmp_path):
    (tmp_path / "top/a").mkdir(parents=True)
    (tmp_path / "elsewhere/deep").mkdir(parents=True)
    for name in ("top/0.wav", "top/a/1.wav", "elsewhere/2.wav", "elsewhere/deep/3.wav", "4.wav"):
        (tmp_path / name).touch()
    (tmp_path / "top/b").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top/c").symlink_to(tmp_path / "elsewhere")
    (tmp_path / "top/4.wav").symlink_to(tmp_path / "4.wav")
    assert names(tmp_path / "top") == [
        "0.wav", "4.wav", "a/1.wav", "b/2.wav", "b/deep/3.wav", "c/2.wav", "c/deep/3.wav",
    ]  # fmt: skip


def test_a_link_that_leads_back_is_not_followed(tmp_path):
    (tmp_path / "top/a").mkdir(parents=True)
    (tmp_path / "top/a/1.wav").touch()
    (tmp_path / "top/a/self").symlink_to(".")
    (tmp_path / "top/a/up").symlink_to(tmp_path / "top")
    (tmp_path / "top/a/gone").symlink_to(tmp_path / "nowhere")
    (tmp_path / "top/a/ring").symlink_to("ring")
    assert names(tmp_path / "top") == ["a/1.wav", "a/gone", "a/ring"]
    assert names(tmp_path / "top/a/ring") == []


def test_folders_that_link_to_each_other_end(tmp_path):
    for name in "abcd":
        (tmp_path / "top" / name).mkdir(parents=True)
        (tmp_path / "top" / name / "1.wav").touch()
        for other in set("abcd") - {name}:
            (tmp_path / "top" / name / other).symlink_to(f"../{other}")
    found = names(tmp_path / "top")
    # Every way through different folders, of 1, 2, 3 or 4 of them: 4 + 4*3 + 4*3*2 + 4*3*2*1.
    assert len(found) == 4 + 12 + 24 + 24
    assert {name.rpartition("/")[2] for name in found} == {"1.wav"}


def test_nothing_is_in_a_folder_that_is_missing(tmp_path):
    assert names(tmp_path / "none") == []
