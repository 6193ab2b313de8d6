"""python -m cxr.train: train one cell of the grid, or with -m all of them."""

import sys
from pathlib import Path

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf

CONF = Path(__file__).parents[1] / "conf"


@hydra.main(config_path=str(CONF), config_name="config", version_base="1.3")
def cell(config: DictConfig) -> None:
    """One cell: its options go to the run folder, then torch is imported and training begins."""
    from cxr.cell import train_cell
    from cxr.results.run_folder import STATUS, read_json

    folder = Path(HydraConfig.get().runtime.output_dir)
    choices = read_json(folder / STATUS)["choices"]
    plain = OmegaConf.to_container(config, resolve=True)
    OmegaConf.save({"choices": choices, **plain}, folder / "config.yaml")
    train_cell(plain, choices, folder)

if __name__ == "__main__":
    cell()
