import platform
import subprocess
import sys

import pytest

FAULTS = """
import resource, sys
import numpy as np
if sys.argv[1] == "keep":
    from cxr.training.memory import keep_freed_memory
    keep_freed_memory()
def step():
    np.ones(64_000_000, np.uint8)
step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(5):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.long
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc: there is nothing to set")
def test_freed_memory_is_used_again_without_asking_the_kernel():
    faults = {
        how: int(subprocess.run([sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True).stdout)
        for how in ("keep", "as it comes")
    }
    assert faults["keep"] < 100, faults
    assert faults["as it comes"] > 10 * faults["keep"], faults
