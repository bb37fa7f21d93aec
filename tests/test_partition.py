"""Work cut into runs of neighbours, and who may be at work beside whom."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesegment.errors import OptionError
from tilesegment.partition import WHOLE, Partition, deal, parse_partition


@given(st.lists(st.integers(1, 20), max_size=200), st.integers(1, 30))
def test_each_item_has_one_owner_and_all_cost_about_the_same(costs: list[int], of: int) -> None:
    owners = deal(costs, of)
    assert len(owners) == len(costs)
    assert set(owners.tolist()) <= set(range(1, of + 1))
    assert (np.diff(owners) >= 0).all()
    loads = np.bincount(owners, costs, minlength=of + 1)[1:]
    assert not costs or np.ptp(loads) < 2 * max(costs)


def test_partitions_of_one_division_work_side_by_side_and_all_others_do_not() -> None:
    mine = Partition(2, 4)
    assert not mine.excludes(Partition(1, 4))
    assert not mine.excludes(mine.publisher)
    assert all(mine.excludes(other) for other in (mine, WHOLE, Partition(2, 3), Partition(1, 5)))
    assert WHOLE.excludes(mine)
    assert WHOLE.excludes(WHOLE)


@pytest.mark.parametrize("text", ["0/4", "5/4", "1/0", "2", "2/4/6", "-1/4", "two/4", "1.5/4", ""])
def test_what_is_no_partition_is_one_line(text: str) -> None:
    with pytest.raises(OptionError, match="--partition .*(write 2/4|count from 1 to)"):
        parse_partition(text)


def test_a_partition_is_read_as_it_is_written() -> None:
    assert parse_partition(str(Partition(3, 12))) == Partition(3, 12)
