"""python -m cxr.report DIR: rebuild report.html of a sweep or of one run from its run folders."""

import sys
from pathlib import Path

from cxr.errors import UserError
from cxr.jobs.exit_codes import fail
from cxr.reporting.report import write_report
from cxr.reporting.words import LANGUAGES

USAGE = "usage: python -m cxr.report DIR [report.lang=en|ko], the folder of a sweep or of a run"


def main() -> None:
    """Exit codes: 0 written, 2 the folder holds no finished run, or a wrong option."""
    words = sys.argv[1:]
    if any(word in ("-h", "--help") for word in words):
        print(USAGE)
        return
    try:
        lang = next((word.partition("=")[2] for word in words if word.startswith("report.lang=")), LANGUAGES[0])
        folders = [word for word in words if not word.startswith("report.lang=")]
        if len(folders) != 1 or folders[0].startswith("-"):
            raise UserError(USAGE)
        if lang not in LANGUAGES:
            raise UserError(f"report.lang={lang}: must be {' or '.join(LANGUAGES)}")
        if not (folders[0] and Path(folders[0]).is_dir()):
            raise UserError(f"{folders[0] or 'DIR'}: there is no such folder; {USAGE}")
        written = write_report(Path(folders[0]), lang)
        if written is None:
            raise UserError(f"{folders[0]}: no finished run in it")
    except UserError as error:
        fail(error)
    print(written)


if __name__ == "__main__":
    main()
