"""What becomes of a process when the one that started it is gone."""

import os
import threading
import time


def end_with_parent(parent: int) -> None:
    """Let this process end when its parent, a process number, has ended, however that was: it would go on for nobody,
    or wait for ever and keep its parent's locks. (Of a process that was asked to end, Python's pools take care.)"""

    def follow() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=follow, daemon=True).start()
