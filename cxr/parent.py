"""What becomes of a process when the one that started it is gone."""

import os
import threading
import time


def end_with_parent() -> None:
    """Let this process end when its parent does, however that ended: it would go on for nobody, or wait for ever and
    keep its parent's locks. (Of a process that was asked to end, Python's pools take care themselves.)"""
    parent = os.getppid()

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
