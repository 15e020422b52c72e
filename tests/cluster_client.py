"""Use the cluster at an address, in a process of its own: python -m tests.cluster_client ADDRESS."""

import sys

from celebflow.cluster import Task, connect


class Adding:
    """A worker that adds 1."""

    threads = 1

    def __call__(self, item: int) -> int:
        """Return the next number."""
        return item + 1

    def probe(self) -> None:
        """Return nothing: nodes are alike."""


if __name__ == "__main__":
    with connect(sys.argv[1], Task(Adding)) as cluster:
        print(sorted(result for _, result in cluster.map([0, 1, 2])))
