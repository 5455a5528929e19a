import pytest

from manypaths.worlds.side_tasks import SIDE_TASKS
from manypaths.worlds.world import NEW, PRETRAINED, WORLDS, resolve_world


def test_worlds():
    assert list(WORLDS) == ["recall", "coldstart"]
    assert WORLDS["recall"].request == PRETRAINED and WORLDS["coldstart"].request == NEW
    for name, world in WORLDS.items():
        assert world.name == name and resolve_world(name) is world
        assert sum(world.mixture.values()) == pytest.approx(1.0)
        assert set(world.mixture) <= {"countdown", *SIDE_TASKS}


def test_unknown_world_is_refused():
    with pytest.raises(ValueError, match=r"'recal'. Did you mean recall.*recall, coldstart"):
        resolve_world("recal")


@pytest.mark.parametrize("request_", [NEW, PRETRAINED])
def test_questions_have_seven_words(request_):
    assert request_.question(((12, 1, 7), 40)) == f"{request_.marker} 12 1 7 = 40 ="
