"""Libraries whose threads a forked child lacks."""

from __future__ import annotations

from msmarco_qdrant.runtime.forks import ThreadedLibrary, keep_for_ever
from tests.forks import in_child


class Owner:
    """An object that reports its end."""

    ended: list[str]

    def __init__(self, ended: list[str]) -> None:
        self.ended = ended

    def __del__(self) -> None:
        """Report it."""
        self.ended.append("ended")


def test_c1_a_library_is_lost_in_children_of_a_process_that_used_it() -> None:
    """Also in a child of such a child, and not in one of a process that did not use it."""
    library = ThreadedLibrary()
    assert "False" == in_child(lambda: library.is_lost)
    library.note_use()
    assert "True" == in_child(lambda: library.is_lost)
    assert "True" == in_child(lambda: in_child(lambda: library.is_lost))
    assert not library.is_lost


def test_c1_a_child_may_use_a_library_first() -> None:
    """Then it is lost in the child's own children."""
    library = ThreadedLibrary()

    def use() -> tuple[bool, str]:
        library.note_use()
        return library.is_lost, in_child(lambda: library.is_lost)

    assert "(False, 'True')" == in_child(use)
    assert not library.is_lost


def test_c1_destructors_of_the_parents_objects_never_run_in_a_child() -> None:
    """In the parent they do."""
    ended: list[str] = []
    library, owners = ThreadedLibrary(), [Owner(ended), Owner(ended)]
    library.note_use(owners[0])

    def forget() -> list[str]:
        owners.clear()
        return ended

    assert "['ended']" == in_child(forget)
    assert ["ended", "ended"] == forget()


def test_c1_kept_objects_stay() -> None:
    """However often their names are removed."""
    ended: list[str] = []

    def forget() -> list[str]:
        owner = Owner(ended)
        keep_for_ever(owner)
        del owner
        return ended

    assert "[]" == in_child(forget)
