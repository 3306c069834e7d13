"""Imported by the fork server only, never by the notebook: what a rank needs, loaded once for all launches.

Starting a rank is then a fork of this process (about 10 ms) instead of a Python that imports torch (1.5 s and more).
The fork is safe because nothing here has started a thread; a fork of the notebook's process would not be: a child of a
process that has used OpenMP hangs in its first parallel loop.
"""

import atexit
import contextlib
import importlib
import os
import signal

# Ctrl-C is for the notebook, also while torch loads here. `launch.warm` had blocked it for the time until now.
signal.signal(signal.SIGINT, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
# BLAS would start its threads when it loads; each rank sets its own number later.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ[_name] = "1"

for _module in (
    "bigmodel_lab.dist._rank",
    "torch._dynamo",  # the first AdamW imports it: 1.4 s on every rank
    "torch.distributed.checkpoint",
    "torch.distributed.fsdp",
    "torch.distributed.pipelining",
    "torch.distributed.tensor.parallel",
    "torch.nn.parallel",
    "threadpoolctl",
    "numba",
):
    with contextlib.suppress(ImportError):  # a rank that needs it says what is missing
        importlib.import_module(_module)

# When the notebook's process is gone, the server ends; the interpreter's own way to take all this down takes a second.
atexit.register(os._exit, 0)
