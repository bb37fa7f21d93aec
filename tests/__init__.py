"""Nothing here may load torch: OpenMP reads these variables once, when it is loaded."""

import os

# Threads that wait for each other in a loop take the cores that the others of pytest-xdist need:
# a test of two seconds takes two minutes. Tests of several threads set their number themselves.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")
