"""Job scheduling and load balancing: a cluster in simulation, policies of a few lines, and a small real pool to judge them by.

Three questions that are often told as one (chapter 18, lab L07):

* which **node** gets a job that needs one node: `simulate(trace, speeds, policy)`, and `run_pool`, which plays the same trace
  with the same policy on real worker processes;
* which waiting **job** starts when jobs need many devices at once: `simulate_gang(jobs, capacity, pick)`;
* how much of several **resources** each user gets: `drf`, and where the pieces fit: `pack`.

In each the policy is an argument: a function of one named tuple (`View`, `Line`, `Piece`), with or without numba's @njit,
that the reader writes himself. One of a few lines is

    @njit                                     # without it the simulation is slower, and the same to the last bit
    def least_loaded(view):
        return np.argmin(view.jobs)

Everything in a simulation follows from the trace, the policy and one seed. Times are in seconds throughout.
"""

from bigmodel_lab.dist.schedule.events import Schedule, Summary, simulate
from bigmodel_lab.dist.schedule.fair import PLACES, Packing, Piece, drf, jain, pack
from bigmodel_lab.dist.schedule.gang import Gang, simulate_gang
from bigmodel_lab.dist.schedule.picks import PICKS, Line
from bigmodel_lab.dist.schedule.policies import POLICIES, View
from bigmodel_lab.dist.schedule.pool import run_pool
from bigmodel_lab.dist.schedule.trace import GangJobs, Trace, gang_trace, make_trace

__all__ = [
    "PICKS",
    "PLACES",
    "POLICIES",
    "Gang",
    "GangJobs",
    "Line",
    "Packing",
    "Piece",
    "Schedule",
    "Summary",
    "Trace",
    "View",
    "drf",
    "gang_trace",
    "jain",
    "make_trace",
    "pack",
    "run_pool",
    "simulate",
    "simulate_gang",
]
