"""Who may be asked for a token while something is measured."""

from __future__ import annotations

from gpud.instances.health.quiet import Quiet


def test_a_device_is_held_until_the_last_who_measures_lets_it_go() -> None:
    quiet = Quiet()
    quiet.hold(["a", "b"])
    quiet.hold(["b"])
    assert quiet.is_held(["b", "c"])
    quiet.release(["a", "b"])
    assert not quiet.is_held(["a"])
    assert quiet.is_held(["b"])
    quiet.release(["b"])
    assert not quiet.is_held(["a", "b"])


def test_a_request_of_ours_is_known_while_it_is_open() -> None:
    quiet = Quiet()
    with quiet.asking("tiny-1"):
        assert quiet.is_asked("tiny-1")
        assert not quiet.is_asked("tiny-2")
    assert not quiet.is_asked("tiny-1")
