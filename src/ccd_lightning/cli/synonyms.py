"""Options by names that they have in other programs, which resemble the name here too little to be found by it."""

from __future__ import annotations

SYNONYMS = {
    **dict.fromkeys(("dir", "data_dir", "path", "data_path", "folder", "dataset", "data_root", "datadir"), "data.root"),
    **dict.fromkeys(("image_size", "img_size", "imgsize", "imsize", "input_size", "resize", "resolution"), "data.size"),
    **dict.fromkeys(("batch", "bs"), "data.batch_size"),
    **dict.fromkeys(("workers", "n_workers"), "data.num_workers"),
    **dict.fromkeys(("lr", "learning_rate"), "model.optimizer.lr"),
    **dict.fromkeys(("epochs", "epoch", "n_epochs", "num_epochs"), "trainer.max_epochs"),
    **dict.fromkeys(("gpus", "gpu", "device", "num_gpus"), "trainer.devices"),
    **dict.fromkeys(("seed", "random_seed"), "seed_everything"),
    **dict.fromkeys(("name", "run_name", "experiment"), "trainer.logger.init_args.name"),
}


def usual_option(name: str) -> str | None:
    """Returns the full key of the option that has this name in other programs; None if there is none."""
    return SYNONYMS.get(name.lower().replace("-", "_"))
