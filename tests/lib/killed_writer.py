"""A writer to be killed: for every line `<root>` on stdin it forks a child that commits what is
pending.

It answers with the child's pid, then, when the child is gone, with its exit status (-9 when
killed). Forking a warm process makes a start so cheap that hundreds of kills take seconds.
"""

from __future__ import annotations

import os
import sys

import pyarrow as pa
import shard_results

from lib.ledger.commit import commit, seal
from lib.ledger.run_folder import RunFolder

SHARDS = [f"{number:05d}" for number in range(4)]


def write_pending(root: str) -> None:
    folder = RunFolder(root)
    fingerprint = folder.read_run()["fingerprint"]
    for shard in folder.pending(SHARDS):
        commit(folder, shard_results.shard_result(shard, image_bytes=20_000), fingerprint)


def main() -> None:
    pa.set_cpu_count(1)
    # What is slow once is done before the first fork.
    seal(RunFolder("unused"), shard_results.shard_result(), "unused")
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            write_pending(line.strip())
            os._exit(0)
        sys.stdout.write(f"{child}\n")
        sys.stdout.flush()
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
