"""What the load test's logits processor writes, and where."""

from multiverse.evaluation.steering import forced

HEADER = [90, 91]
GOALS = [[1, 2, 3], [4, 5, 6, 7], [8, 9]]
ASKED = [30, 31, 32]  # their sum picks the goal


def test_a_goal_is_written_behind_the_header_and_nothing_more() -> None:
    goal = GOALS[sum(ASKED) % 3]
    written: list[int] = []
    while (token := forced(HEADER, GOALS, [*ASKED, *HEADER], written)) is not None:
        written.append(token)
    assert written == goal


def test_the_question_picks_the_goal() -> None:
    assert [forced(HEADER, GOALS, [number, *HEADER], []) for number in (30, 31, 32)] == [1, 4, 8]


def test_a_resumed_request_goes_on_where_it_was() -> None:
    prompt = [31, *HEADER]
    for cut in range(4):
        assert forced(HEADER, GOALS, [*prompt, *GOALS[1][:cut]], []) == GOALS[1][cut]
        assert forced(HEADER, GOALS, [*prompt, *GOALS[1][:1]], GOALS[1][1:2]) == GOALS[1][2]


def test_other_text_is_left_alone() -> None:
    assert forced(HEADER, GOALS, [31], []) is None
    assert forced(HEADER, GOALS, [31, *HEADER, 77], []) is None
    assert forced(HEADER, GOALS, [31, *HEADER], [4, 77]) is None
    assert forced(HEADER, GOALS, [31, *HEADER, *GOALS[1], 12], [13]) is None
