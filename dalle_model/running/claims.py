"""Work sharing by file locks: processes on one machine, or on several with a shared file system, claim units.

A unit is finished when its output lies under its final name, so nobody keeps an account. A claim is the operating
system's lock on a file, so it ends with its process, and another one takes the unit. Claims only save double work: a unit
made twice, where a file system has no locks between machines, is written twice with the same bytes.
"""

import time
from collections.abc import Callable, Mapping
from pathlib import Path

from dalle_datasets.store.locks import held

POLL_S = 1.0
"""How often a process with nothing left to claim looks whether the others have finished, or died."""


def run_units(
    claims: Path,
    units: Mapping[str, int],
    is_done: Callable[[str], bool],
    make: Callable[[str], None],
    report: Callable[[int], None],
) -> None:
    """Make those of `units` (name -> size) that are not done and that nobody else is making, and return when all are done.

    `claims` is a folder for the locks. `report` is told the size of all that is done, by any process, whenever that grows, and
    from time to time while waiting for others. An exception of `make` ends this process's work; the unit is free again.
    """
    left, done = dict(units), 0
    while left:
        has_moved = False
        for unit, size in list(left.items()):
            if not is_done(unit):
                path = claims / unit
                with held(path) as is_mine:
                    if not is_mine:
                        continue
                    if not is_done(unit):  # its maker may have finished since we looked
                        make(unit)
                    path.unlink(missing_ok=True)  # whoever opened it meanwhile finds the unit done
            del left[unit]
            done += size
            has_moved = True
            report(done)
        if left and not has_moved:
            time.sleep(POLL_S)
            report(done)
