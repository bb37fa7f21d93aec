"""Where the time of a run went, added up."""

from xml.etree import ElementTree

import pytest

from tilesegment.profiling import STEPS, WorkerTimes, draw_profile, step_of, summarise_times


def worked(steps: list[tuple[str, float, float]]) -> WorkerTimes:
    times = WorkerTimes()
    for step, start, stop in steps:
        times.add(step, start, stop)
        times.count(step)
    return times


TWO = {
    "busy": worked([("reading", 10, 12), ("inference", 12, 17), ("inference", 17, 20)]),
    "late": worked([("inference", 18, 20)]),
}


def test_the_seconds_of_a_step_are_those_of_all_workers() -> None:
    profile = summarise_times(TWO)
    assert profile.steps == {**dict.fromkeys(STEPS, 0.0), "reading": 2, "inference": 10}
    assert (profile.seconds, profile.workers, profile.tiles) == (10, 2, 3)
    assert profile.tasks_per_tile == pytest.approx(4 / 3, abs=0.01)


def test_a_worker_is_idle_while_its_network_waits() -> None:
    profile = summarise_times(TWO)
    assert profile.idle_share == 0.5
    assert [one["idle_share"] for one in profile.per_worker.values()] == [0.2, 0.8]


def test_nothing_done_is_no_error() -> None:
    profile = summarise_times({})
    assert (profile.seconds, profile.idle_share, profile.tasks_per_tile) == (0, 0, 0)
    ElementTree.fromstring(draw_profile(profile))  # noqa: S314 - our own text


def test_the_chart_shows_every_step_that_took_time_and_no_other() -> None:
    chart = ElementTree.fromstring(draw_profile(summarise_times(TWO)))  # noqa: S314 - our own text
    texts = [element.text or "" for element in chart.iter("{http://www.w3.org/2000/svg}text")]
    assert [text.partition(":")[0] for text in texts[1::2]] == ["reading", "inference"]
    assert texts[2::2] == ["2.0 s", "10.0 s"]


def test_unknown_tasks_are_counted_too() -> None:
    assert step_of("record-tilesegment-1-0-0-0") == "writing"
    assert step_of("something") == "other"
