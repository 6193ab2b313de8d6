"""Tables written for tests, and read as a command would."""

from cxr.data.sources import read_local


def read(table, root=None, **options):
    """The images of a table, with these options `data.*`."""
    return read_local({"source": "table", "table": str(table), "root": root, **options})


def table_of(folder, header, *lines):
    """A CSV file of these lines in a folder."""
    (folder / "t.csv").write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return folder / "t.csv"
