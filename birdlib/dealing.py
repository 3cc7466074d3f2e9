"""How whole groups are dealt out to the test and the folds: the arithmetic behind `birdlib.splits`.

Everywhere here ``counts`` is a sparse int64 table (groups, classes): how many recordings of each class a group holds.
``chance`` are numbers in 0..1 that groups drew; they settle orders and ties.
"""

from __future__ import annotations

import numpy as np
from scipy.sparse import csr_array


def _row(table: csr_array, row: int) -> tuple[np.ndarray, np.ndarray]:
    """Where a row of a sparse table is not zero, and what stands there."""
    start, stop = table.indptr[row : row + 2]
    return table.indices[start:stop], table.data[start:stop]


class _Test:
    """The test as it is put together: which groups are in, and how far that takes each class.

    `counts` (groups, classes) holds recordings; `target` and `held` recordings of each class; `groups` and `inside`
    groups of each class, in all and in the test.
    """

    def __init__(self, counts: csr_array, share: float) -> None:
        self.counts = counts
        self.members = counts.T.tocsr()
        self.target = np.maximum(1.0, share * counts.sum(axis=0))
        self.held = np.zeros(counts.shape[1])
        self.groups = np.diff(self.members.indptr)
        self.inside = np.zeros_like(self.groups)
        self.has = np.zeros(counts.shape[0], dtype=bool)

    def may_move(self, group: int) -> bool:
        """Two groups of a class stay out, so that one trains while the other validates; what got in keeps one in."""
        classes, _ = _row(self.counts, group)
        if self.has[group]:
            return bool((self.inside[classes] > 1).all())
        return bool((self.groups[classes] - self.inside[classes] > 2).all())

    def change(self, group: int) -> float:
        """What moving the group adds to the summed squared distance from the targets, in targets.

        The distance of the whole test from its size counts a little too: it settles the ties of classes that could
        as well have one recording more, so that they do not all round down.
        """
        classes, moved = _row(self.counts, group)
        moved = -moved if self.has[group] else moved
        gap = self.held[classes] - self.target[classes]
        size, lack = moved.sum(), self.held.sum() - self.target.sum()
        of_classes = (moved * (moved + 2 * gap) / self.target[classes] ** 2).sum()
        return round(float(of_classes + 0.01 * size * (size + 2 * lack) / self.target.sum() ** 2), 9)

    def move(self, group: int) -> None:
        """Take the group in, or out if it is in."""
        classes, moved = _row(self.counts, group)
        sign = -1 if self.has[group] else 1
        self.held[classes] += sign * moved
        self.inside[classes] += sign
        self.has[group] = not self.has[group]

    def absent(self) -> np.ndarray:
        """The classes with three groups or more, and none of them here."""
        return np.flatnonzero((self.inside == 0) & (self.groups > 2))


def pick_test(counts: csr_array, share: float, chance: np.ndarray) -> np.ndarray:
    """Which groups are the test, bool (groups,).

    First a group of every class, the classes with fewest groups choosing first. Then groups go in and out, in an
    order of chance, for as long as that brings the classes nearer to their targets.
    """
    test = _Test(counts, share)
    if share == 0:
        return test.has
    for label in np.argsort(test.groups, kind="stable"):
        if label in test.absent():
            _represent(test, label, chance)
    order = np.argsort(chance, kind="stable")
    for _ in range(20):  # it settles after two to six
        before = test.has.copy()
        for group in order:
            if test.change(group) < 0 and test.may_move(group):
                test.move(group)
        if (before == test.has).all():
            break
    return test.has


def _represent(test: _Test, label: int, chance: np.ndarray) -> None:
    """Give an absent class a group: any that does no harm, else the one that does least.

    Where other groups stand in the way, they go out, if that leaves fewer classes absent.
    """
    before = len(test.absent())
    members = _row(test.members, label)[0]
    rank = {group: (not test.may_move(group), max(0.0, test.change(group)), chance[group]) for group in members}
    for group in sorted(members, key=rank.__getitem__):
        classes = _row(test.counts, group)[0]
        if (test.groups[classes] < 3).any():
            continue
        moved = [group]
        test.move(group)
        for full in classes:
            if test.groups[full] - test.inside[full] < 2:
                others = [other for other in _row(test.members, full)[0] if test.has[other] and other != group]
                moved.append(min(others, key=chance.__getitem__))
                test.move(moved[-1])
        if len(test.absent()) < before:
            return
        for back in moved:
            test.move(back)


def pick_folds(counts: csr_array, test: np.ndarray, chance: np.ndarray) -> np.ndarray:
    """The fold of every group, int (groups,), -1 for the test and for what is always in training.

    Large groups first, each to the fold that holds least of its classes; `chance` (groups, folds) settles ties.
    """
    single = np.bincount(counts.indices, minlength=counts.shape[1]) == 1
    free = ~test & (counts @ single.astype(np.int64) == 0)
    fold = np.full(len(test), -1)
    total = np.maximum(1, counts[free].sum(axis=0))
    held = np.zeros((chance.shape[1], counts.shape[1]))
    order = np.lexsort((chance[:, 0], -counts.sum(axis=1)))
    for group in order[free[order]]:
        classes, added = _row(counts, group)
        cost = ((2 * held[:, classes] + added) * added / total[classes] ** 2).sum(axis=1).round(9)
        fold[group] = np.lexsort((chance[group], cost))[0]
        held[fold[group], classes] += added
    _keep_all_training(counts, ~test, fold, order, chance)
    return fold


def _keep_all_training(
    counts: csr_array, stays: np.ndarray, fold: np.ndarray, order: np.ndarray, chance: np.ndarray
) -> None:
    """Where one fold would take a whole class out of training, move its last group, or keep that in training."""
    members = counts.T.tocsr()
    rank = np.argsort(order)

    def outside_test(label: int) -> np.ndarray:
        groups = _row(members, label)[0]
        return groups[stays[groups]]

    def trains(label: int) -> bool:
        folds = set(fold[outside_test(label)])
        return len(folds) > 1 or -1 in folds

    for label in range(counts.shape[1]):
        if not trains(label):
            smallest = max(outside_test(label), key=rank.__getitem__)
            for choice in (*np.argsort(chance[smallest]), -1):
                fold[smallest] = choice
                if all(trains(other) for other in _row(counts, smallest)[0]):
                    break
