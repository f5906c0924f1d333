"""A run goes on as it began: with the same identity, and with all that its checkpoints hold."""

import pytest

from embed import files
from embed.errors import DataError
from embed.training import identity


def test_another_value_a_new_one_and_one_that_is_gone_are_refused(tmp_path):
    identity.check({"seed": 1}, {"seed": 1}, tmp_path)
    with pytest.raises(DataError, match="began with seed 0, now it is 1; give the same, or start another"):
        identity.check({"seed": 1}, {"seed": 0}, tmp_path)
    with pytest.raises(DataError, match="began without seed, or with an older version"):
        identity.check({"seed": 1}, {}, tmp_path)
    with pytest.raises(DataError, match="began with seed 0, now it is None"):
        identity.check({}, {"seed": 0}, tmp_path)


def test_a_checkpoint_with_more_than_the_run_has_is_refused(tmp_path):
    """The averages of parameters would be taken for the parameters."""
    files.write_manifest(tmp_path, trees={"params": {}, "opt_state": {}, "learned": {}, "moving": {}})
    identity.check_trees(tmp_path, dict.fromkeys(("params", "opt_state", "learned", "moving")))
    with pytest.raises(
        DataError, match=r"holds learned, moving too, which the run does not have now.*Recipe.ema_decay"
    ):
        identity.check_trees(tmp_path, dict.fromkeys(("params", "opt_state")))
