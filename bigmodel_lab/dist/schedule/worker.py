"""What a worker process of `bigmodel_lab.dist.schedule.pool` does. Run as a program: it imports nothing that takes time."""

import sys
import time


def serve(tasks, answers, compute: bool) -> None:
    """Answer each line "job seconds" with "job began ended" once it is done, until the tasks end.

    Times are of time.monotonic, which all processes of a machine share. compute : use processor time instead of sleeping.
    """
    answers.write("ready\n")
    answers.flush()
    for task in tasks:
        job, seconds = task.split()
        began = time.monotonic()
        if compute:
            until = time.process_time() + float(seconds)
            while time.process_time() < until:
                pass
        else:
            time.sleep(float(seconds))
        answers.write(f"{job} {began!r} {time.monotonic()!r}\n")
        answers.flush()


if __name__ == "__main__":
    serve(sys.stdin, sys.stdout, compute=sys.argv[1] == "compute")
