"""The first thing that is imported in the process which workers are copies of: it ends with whoever started it.

multiprocessing's own end of it waits until all imports are done, and a command may have ended long before.
"""

import ctypes
import signal
from contextlib import suppress

PR_SET_PDEATHSIG = 1

with suppress(OSError, AttributeError):  # a C library without it
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
