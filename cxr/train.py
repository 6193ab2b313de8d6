"""python -m cxr.train: train one cell of the model × augmentation grid, or with -m all of them."""

import gc
import os
import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

from cxr.command_line import CONF, CommandLine, fail, prepare
from cxr.errors import UserError
from cxr.results import leaderboard
from cxr.results.run_folder import STATUS, read_json, write_status


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def cell(config: DictConfig) -> None:
    """One cell: its options go to the run folder, then torch is imported and training begins."""
    from cxr.cell import train_cell

    if not gc.get_freeze_count():  # what these imports made stays: the collector need not walk it again and again
        gc.freeze()
    hydra_options = HydraConfig.get()
    folder = Path(hydra_options.runtime.output_dir)
    choices = read_json(folder / STATUS)["choices"]
    options = OmegaConf.to_container(config, resolve=True)
    OmegaConf.save({"choices": choices, **options}, folder / "config.yaml")
    try:
        train_cell(options, choices, folder, shared_console=hydra_options.runtime.choices.launcher != "basic")
    except (KeyboardInterrupt, SystemExit):  # Lightning turns a Ctrl-C during training into SystemExit
        write_status(folder, "failed", "interrupted")
        raise KeyboardInterrupt from None


def main() -> None:
    """Exit codes: 0 all well, 1 a run failed, 2 wrong options, 130 interrupted."""
    os.environ.setdefault("HYDRA_FULL_ERROR", "1")  # errors come to us, not to Hydra's own many lines
    try:
        command = prepare(sys.argv[1:], "config")
    except UserError as error:
        fail(error)
    except KeyboardInterrupt:
        raise SystemExit(130) from None
    sys.argv[1:] = command.argv
    try:
        if command.multirun and command.folder:
            sweep(command)
        else:
            cell()
    except KeyboardInterrupt:
        if command.multirun and command.folder:
            leaderboard.write(command.folder)
        print(f"cxr: interrupted; what is done is in {command.folder}", file=sys.stderr)
        raise SystemExit(130) from None


def sweep(command: CommandLine) -> None:
    """All cells, then the table that they were trained for, whatever happened on the way."""
    failed: list[leaderboard.Row] = []
    try:
        cell()
    except Exception as error:
        failed = [row for row in leaderboard.collect(command.folder) if row["status"] in ("failed", "lost")]
        if not failed:  # not a cell's error, which its log and the leaderboard hold
            raise
        if any(row["status"] == "lost" for row in failed):  # of these nobody else tells why
            print(f"cxr: {type(error).__name__}: {' '.join(str(error).split())[:200]}", file=sys.stderr)
    from cxr.results import comparison, report  # scipy.stats, matplotlib: not before they are needed

    rows = leaderboard.write(command.folder)  # once more: cells side by side may have overtaken each other
    print(f"\n{leaderboard.grid(rows)}\n")
    for line in comparison.write(command.folder):
        print(f"- {line}")
    told = report.write(command.folder, command.lang)
    print(f"\nall runs: {command.folder / 'leaderboard.md'}" + (f", report: {told}" if told else ""))
    if failed:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
