"""Random programs, edited at random: after every step the relinked program prints what one linked
from scratch prints, and verification is silent.

KLD_INC_STEPS is the number of steps for each CPU (300). randomprogram.py runs them without an end.
"""

import os

import pytest

from inc import PLAIN
from inc import SPLIT
from kldtest import Workspace
from randomprogram import KINDS
from randomprogram import Session
from randomprogram import patched_share

STEPS = int(os.environ.get('KLD_INC_STEPS', '300'))
SEED = int(os.environ.get('KLD_INC_SEED', '1'))
# Of what a program was edited at random, this share of the ordinary edits has to be patched.
SHARE = 0.8


@pytest.mark.parametrize('split', [SPLIT, ()], ids=['split', 'unit'])
@pytest.mark.parametrize('lang', ['c', 'c++'])
def test_random_edits(t, lang, split):
    outcomes, told = [], []
    for kind in KINDS:
        (t.path / kind).mkdir()
        session = Session(Workspace(t.path / kind, t.target, t.linker_dir), SEED, lang, kind, bool(split))
        try:
            outcomes += session.steps(max(1, STEPS // 12))
        except AssertionError as error:
            pytest.fail(f'{error}\n\nafter these steps:\n{session.told()}', pytrace=False)
        told.append(session.told())
    share = patched_share(outcomes)
    assert PLAIN or share >= SHARE, f'{share:.0%} of ordinary edits patched\n' + '\n'.join(told)
