"""A command of ours, started as a person does and stopped by Ctrl-C at a moment that its progress bar shows."""

import os
import signal
import subprocess


def stopped(line: list[str], when: bytes) -> str:
    """Run the command, interrupt it once its stderr shows `when`, and return what it printed; it must end with status 0."""
    p = subprocess.Popen(
        line,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={k: v for k, v in os.environ.items() if k != "TQDM_DISABLE"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    try:
        err = b""
        while when not in err and (more := os.read(p.stderr.fileno(), 1000)):
            err += more
        p.send_signal(signal.SIGINT)
        out, more = p.communicate(timeout=120)
    finally:
        p.kill()
    assert p.returncode == 0, err + more
    return out.decode()
