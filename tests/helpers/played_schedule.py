"""A pipeline's schedule played without processes: every pass as soon as what it needs is there."""

from bigmodel_lab.dist.pipeline_schedule import Pass, schedule


def play(
    name: str, stages: int, micros: int, v: int, backward_s: int = 1
) -> list[list[tuple[Pass, float, float]]]:
    """Return for each stage its passes with their start and end, in order.

    A forward pass takes a second, a backward pass `backward_s`, a message no time. Fails if the schedule waits for itself.
    """
    todo = [schedule(name, s, stages, micros, v) for s in range(stages)]
    done = [[] for _ in range(stages)]
    ended, last = {}, stages * v - 1
    while any(todo):
        moved = False
        for s in range(stages):
            if not todo[s]:
                continue
            p = todo[s][0]
            place = p.chunk * stages + s
            if p.kind == "F":
                need = ("F", place - 1, p.micro) if place else None
            else:
                need = ("F", place, p.micro) if place == last else ("B", place + 1, p.micro)
            if need is None or need in ended:
                start = max(done[s][-1][2] if done[s] else 0, ended.get(need, 0))
                end = start + (1 if p.kind == "F" else backward_s)
                ended[p.kind, place, p.micro] = end
                done[s].append((p, start, end))
                todo[s], moved = todo[s][1:], True
        assert moved, "the schedule waits for itself"
    return done
