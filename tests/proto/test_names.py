"""Names: what is accepted, and that a refusal names the thing and the fix."""

import pytest

from quorumlog.proto.names import NameInvalid, check_group_name, check_topic_name, is_internal


@pytest.mark.parametrize("name", ["a", "orders", "A-b_c.9", "_one", "x" * 249, "...", "-"])
def test_good_names(name: str) -> None:
    check_topic_name(name)
    check_group_name(name)


@pytest.mark.parametrize(
    ("name", "names_the_thing", "names_the_fix"),
    [
        ("", "empty", "name"),
        ("x" * 250, "250 characters", "249"),
        ("my topic/€", "' /€'", "a-z"),
        ("line\n", r"'\n'", "a-z"),
        (".", "'.'", "longer"),
        ("..", "'..'", "longer"),
    ],
)
def test_bad_names(name: str, names_the_thing: str, names_the_fix: str) -> None:
    for check, what in ((check_topic_name, "topic"), (check_group_name, "group")):
        with pytest.raises(NameInvalid) as refused:
            check(name)
        assert what in refused.value.message
        assert names_the_thing in refused.value.message
        assert names_the_fix in refused.value.hint


def test_internal_topics_are_reserved() -> None:
    assert is_internal("__groups")
    assert not is_internal("_groups")
    with pytest.raises(NameInvalid, match="'__groups' begins with '__'") as refused:
        check_topic_name("__groups")
    assert refused.value.hint == "use groups"
    check_group_name("__mine")
