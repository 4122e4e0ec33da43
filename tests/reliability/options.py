"""Options out of their range, of another type, or not to be had together."""

from __future__ import annotations

from tests.reliability.cases import Case

SMALL = "--data.size 64 --data.train 12 --data.test_good 5 --data.test_abnormal 6 --data.batch_size 6"
FIT = {
    "padim": f"fit --config padim_synthetic {SMALL} --model.encoder.weights null",
    "neighbours": f"fit --config neighbours_synthetic {SMALL} --model.encoder.weights null",
    "mahalanobis": f"fit --config padim_synthetic {SMALL} --model Mahalanobis --model.encoder.weights null",
    "igd": (
        f"fit --config igd_synthetic {SMALL} --model.encoder.weights null --model.local_encoder.weights null"
        " --model.global_scale.size 64 --model.global_scale.width 8 --model.latent_size 16"
    ),
    "ensemble": f"fit --config padim_synthetic {SMALL} --model Ensemble --model.detectors [runs/padim_synthetic]",
    "ccd": f"fit --config ccd_synthetic {SMALL} --data.views.size 32 --data.views.patch_size 16",
    "simclr": f"fit --config simclr_synthetic {SMALL} --data.views.size 32",
    "pmsacl": f"fit --config pmsacl_synthetic {SMALL} --model.encoder.weights null --data.views.size 32",
    "folder": "fit --config padim_folder --data.root data/synthetic_colonoscopy --data.size 64"
    " --model.encoder.weights null",
}
OFTEN = 2  # values of each option
NUMBER = (".nan", ".inf", "x")  # what no number may be
SHARE = ("-0.1", "1.5", *NUMBER)
NOT_BELOW_0 = ("-1", *NUMBER)
ABOVE_0 = ("0", *NOT_BELOW_0)
COUNT = ("0", "-1", "1.5", "x")

# The model or data, the option, and values that it may not have.
VALUES: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("padim", "model.blur", NOT_BELOW_0),
    ("padim", "model.ridge", ABOVE_0),
    ("padim", "model.channels", COUNT),
    ("padim", "model.quantile", ("0", "1", *SHARE)),
    ("padim", "model.top", SHARE),
    ("padim", "model.shrinkage", ("x", "2")),
    ("padim", "model.features.layers", ("[]", "[9]", "[-1]", "[1, 1]", "[2, 1]", "x")),
    ("padim", "model.features.positions", ("-1", "x")),
    ("padim", "model.features.window", ("-1", "0", "2", "x")),
    ("padim", "model.encoder.name", ("nothing18", "1", "''")),
    ("padim", "model.encoder.weights", ("nothing.pt", "imagenet21k", "''")),
    ("neighbours", "model.window", ("-1", "x")),
    ("neighbours", "model.bank_size", ("0", "-1", "x")),
    ("neighbours", "model.reweight", ("-1", "x")),
    ("neighbours", "model.pooled", ("x",)),
    ("neighbours", "model.blur", ("-1", ".nan")),
    ("neighbours", "model.top", ("2", ".nan")),
    ("mahalanobis", "model.blur", ("-1", ".nan")),
    ("mahalanobis", "model.quantile", ("2", ".nan")),
    ("ensemble", "model.quantile", ("2", ".nan")),
    ("ensemble", "model.detectors", ("[]", "[runs/nothing]", "[runs/ccd_synthetic]", "[configs]")),
    ("igd", "model.latent_size", COUNT),
    ("igd", "model.global_scale.size", ("0", "63", "-8", "x")),
    ("igd", "model.global_scale.width", ("0", "-8", "12", "x")),
    ("igd", "model.global_scale.weight", NOT_BELOW_0),
    ("igd", "model.global_scale.gaussian", SHARE),
    ("igd", "model.global_scale.structure", ("2", ".nan")),
    ("igd", "model.global_scale.ssim_window", ("0", "-3", "4", "x")),
    ("igd", "model.global_scale.ssim_weights", ("[]", "[-1]", "[.nan]", "[0, 0]", "x")),
    ("igd", "model.local_scale.stride", ("0", "-1", "33", "x")),
    ("igd", "model.local_scale.windows_per_image", ("0", "x")),
    ("igd", "model.local_scale.chunk_size", ("0", "x")),
    ("igd", "model.local_scale.size", ("0", "-8", "9")),
    ("igd", "model.training.gaussian", NOT_BELOW_0),
    ("igd", "model.training.interpolation", NOT_BELOW_0),
    ("igd", "model.training.estimate_every", COUNT),
    ("igd", "model.optimizer.lr", ("-1", ".nan")),
    ("ccd", "model.temperature", ABOVE_0),
    ("ccd", "model.contrastive_weight", NOT_BELOW_0),
    ("ccd", "model.augmentation_weight", NOT_BELOW_0),
    ("ccd", "model.position_weight", NOT_BELOW_0),
    ("ccd", "model.distributions", ("0", "-1", "7", "x")),
    ("ccd", "model.warmup_steps", ("-1", "x")),
    ("ccd", "model.schedule", ("weekly",)),
    ("ccd", "model.optimizer.lr", NOT_BELOW_0),
    ("ccd", "model.optimizer.weight_decay", NOT_BELOW_0),
    ("ccd", "model.optimizer.eps", ("-1", ".nan")),
    ("ccd", "model.optimizer.betas", ("[0.9]", "[2, 0.9]", "x")),
    ("ccd", "model.optimizer", ("Adem", "torch.optim.Nothing", "1")),
    ("ccd", "model.encoder.freeze", ("-1", "99", "x")),
    ("ccd", "model.encoder.lr_scale", ABOVE_0),
    ("ccd", "model.encoder.l2_sp", NOT_BELOW_0),
    ("ccd", "model.encoder.batch_norm", ("frozen",)),
    ("simclr", "model.temperature", ("0", ".nan")),
    ("simclr", "model.warmup_steps", ("-1",)),
    ("pmsacl", "model.alpha", ABOVE_0),
    ("pmsacl", "model.centring_weight", NOT_BELOW_0),
    ("pmsacl", "model.temperature", ("0", ".nan")),
    ("ccd", "data.views.size", ("0", "-1", "x")),
    ("ccd", "data.views.patch_size", ("0", "-1", "1000", "x")),
    ("ccd", "data.views.scale", ("[1, 0]", "[0, 1]", "[.nan, 1]", "[0.1, 2]", "[0.5]", "x")),
    ("ccd", "data.views.pairs", ("-1", "x")),
    ("ccd", "data.views.cutout_size", ("-1", "x")),
    ("ccd", "data.views.tile", ("-1", "1000", "x")),
    ("ccd", "data.views.draw", ("none",)),
    ("ccd", "data.views.augment_on", ("gpu",)),
    ("ccd", "data.views.family", ("Rotated", "torch.nn.Nothing")),
    ("ccd", "data.views", ("x", "1")),
    ("padim", "data.size", ("0", "-1", "x", "[1, 2, 3]", "1.5", "10000000")),
    ("padim", "data.batch_size", COUNT),
    ("padim", "data.validation", ("0", "1", *SHARE)),
    ("padim", "data.num_workers", ("-1", "x")),
    ("padim", "data.crop", ("[0, 0, 1]", "[1, 0, 0, 1]", "[0, 0, 2, 1]", "[0, 0, .nan, 1]", "x")),
    ("padim", "data.window", ("[1]", "[2, 1]", "[.nan, 1]", "percentile", "'percentile [50, 200]'", "x")),
    ("padim", "data.tiles", ("0", "-1", "x", "{side: 0}", "{side: 32, overlap: 32}", "{side: 32, top: .nan}")),
    ("padim", "data.axis", ("3", "-1", "x")),
    ("padim", "data.fit", ("stretch",)),
    ("padim", "data.train", ("0", "-1", "x")),
    ("padim", "data.test_good", ("-1", "x")),
    ("padim", "data.render_seed", ("-1",)),
    ("padim", "data.check_leaks", ("x",)),
    ("padim", "data.groups", ("x",)),
    ("padim", "data.require_masks", ("x",)),
    ("folder", "data.layout", ("nothing",)),
    ("folder", "data.split_seed", ("-1", "x")),
    ("padim", "seed_everything", ("-1", "x", "1.5", str(2**40), "true")),
    ("padim", "trainer.accelerator", ("quantum", "tpu", "''")),
    ("padim", "trainer.devices", ("0", "-5", "x", "[]")),
    ("padim", "trainer.precision", ("7", "x")),
    ("padim", "trainer.strategy", ("x", "ddp_x")),
    ("padim", "trainer.num_nodes", ("0", "-1", "x")),
    ("padim", "trainer.max_epochs", ("0", "-5", "x", "1.5")),
    ("ccd", "trainer.max_steps", ("0", "-7", "x")),
    ("ccd", "trainer.max_time", ("x", "1")),
    ("ccd", "trainer.limit_train_batches", ("-1", "2.5", ".nan", "x", "0")),
    ("ccd", "trainer.limit_val_batches", ("-1", "2.5", "x")),
    ("ccd", "trainer.accumulate_grad_batches", COUNT),
    ("ccd", "trainer.gradient_clip_val", ("-1", ".nan", "x")),
    ("ccd", "trainer.gradient_clip_algorithm", ("x",)),
    ("ccd", "trainer.log_every_n_steps", ("-1", "x")),
    ("ccd", "trainer.check_val_every_n_epoch", ("0", "-1", "x")),
    ("ccd", "trainer.val_check_interval", ("-1", "2.5", "x")),
    ("padim", "trainer.overfit_batches", ("-1", "2.5", "x")),
    ("padim", "trainer.fast_dev_run", ("-1", "x")),
    ("padim", "trainer.profiler", ("x",)),
    ("padim", "trainer.logger", ("x", "1")),
    ("padim", "trainer.callbacks", ("x", "[x]")),
    ("padim", "trainer.deterministic", ("x",)),
    ("padim", "trainer.benchmark", ("x",)),
    ("padim", "trainer.reload_dataloaders_every_n_epochs", ("-1",)),
    ("padim", "optimizer", ("Adem",)),
    ("ccd", "lr_scheduler", ("Nothing",)),
)
FAMILY = "ccd_lightning.transforms.strong."
# The words after a fit's, and what the message names.
OTHERS: tuple[tuple[str, str, tuple[str, ...]], ...] = (
    ("ccd", "--data.views.family torch.nn.Identity", ("data.views.family is Identity", "count")),
    ("ccd", f"--data.views.family {FAMILY}Cutout --data.views.family.side 0", ("data.views.family.side is 0",)),
    ("ccd", f"--data.views.family {FAMILY}Cutout --data.views.family.side .nan", ("data.views.family.side is nan",)),
    ("ccd", f"--data.views.family {FAMILY}Noise --data.views.family.variance -1", ("data.views.family.variance",)),
    ("ccd", f"--data.views.family {FAMILY}Noise --data.views.family.amount 2", ("data.views.family.amount is 2",)),
    *(
        (
            "ccd",
            f"--data.views.family ccd_lightning.transforms.medmix.MedMix --data.views.family.{name} '{value}'",
            (f"data.views.family.{name}",),
        )
        for name, value in (
            *(("size", "[0, 1]"), ("size", "[0.5, 0.1]"), ("size", "[.nan, 1]"), ("strength", "[0.1, 2]")),
            *(("jitter", "-1"), ("jitter", "2"), ("noise", "-1"), ("noise", ".nan"), ("warp", "-1"), ("warp", ".inf")),
        )
    ),
    ("padim", "--model.blurr 1", ("'model.blurr'", "did you mean 'blur'?")),
    ("padim", "--model.chanels 1", ("'model.chanels'", "did you mean 'channels'?")),
    ("padim", "--model.features.layer [1]", ("'model.features.layer'", "did you mean 'layers'?")),
    ("padim", "--model.encoder.weight x", ("'model.encoder.weight'", "did you mean 'weights'?")),
    ("igd", "--model.training.estimate 1", ("'model.training.estimate'", "did you mean 'estimate_every'?")),
    ("padim", "--trainer.max_epoch 1", ("'trainer.max_epoch'", "did you mean 'max_epochs'?")),
    ("padim", "--model.temperature 1", ("'model.temperature'", "--help")),
    ("igd", "--model.global_scale.sise 64", ("'model.global_scale.sise'", "did you mean 'size'?")),
    ("ccd", "--model.optimizer.learning_rate 1", ("'model.optimizer.learning_rate'",)),
    ("ccd", "--data.views.paires 1", ("'data.views.paires'", "did you mean 'pairs'?")),
    ("padim", "--data.batchsize 1", ("'data.batchsize'", "did you mean 'batch_size'?")),
    ("padim", "--data.tiles {sides: 32}", ("data.tiles",)),
    ("padim", "--trainer.max-epochs 1", ("'trainer.max-epochs'", "did you mean 'max_epochs'?")),
    ("padim", "--tainer.max_epochs 1", ("'tainer", "did you mean 'trainer'?")),
    ("padim", "--seed 1", ("'seed'", "seed_everything")),
    ("folder", "--data.dir x", ("'data.dir'", "did you mean 'data.root'?")),
    ("folder", "--data.path x", ("'data.path'", "did you mean 'data.root'?")),
    ("folder", "--data.folder x", ("'data.folder'", "did you mean 'data.root'?")),
    ("folder", "--root x", ("'root'", "did you mean 'data.root'?")),
    ("folder", "--data.image_size 64", ("'data.image_size'", "did you mean 'data.size'?")),
    ("folder", "--data.workers 1", ("'data.workers'", "did you mean 'data.num_workers'?")),
    ("ccd", "--data.views.image_size 32", ("'data.views.image_size'", "did you mean 'data.views.size'?")),
    ("ccd", "--model.lr 1", ("'model.lr'", "did you mean 'model.optimizer.lr'?")),
    ("padim", "--epochs 1", ("'epochs'", "did you mean 'trainer.max_epochs'?")),
    ("padim", "--trainer.gpus 1", ("'trainer.gpus'", "did you mean 'trainer.devices'?")),
    ("padim", "--name x", ("'name'", "did you mean 'trainer.logger.init_args.name'?")),
    ("padim", "--batch_size 1", ("'batch_size'", "did you mean 'data.batch_size'?")),
    ("padim", "--zzz 1", ("'zzz'", "--help")),
    ("padim", "--model.zzz 1", ("'model.zzz'", "--help")),
    ("padim", "surplus", ("surplus", "--help")),
    ("padim", "--model PaDim", ("model", "PaDim", "did you mean PaDiM?")),
    ("padim", "--model Unknown", ("model", "Unknown", "PaDiM")),
    ("padim", "--model torch.nn.Linear", ("model", "torch.nn.Linear")),
    ("padim", "--model nowhere.Model", ("model: there is no module nowhere", "PYTHONPATH")),
    ("padim", "--model ''", ("model",)),
    ("padim", "--data Foldr", ("data", "Foldr", "did you mean Folder?")),
    ("padim", "--data Unknown", ("data", "Unknown", "Folder")),
    ("padim", "--model.features 3", ("model.features",)),
    ("padim", "--model.encoder 3", ("model.encoder",)),
    ("igd", "--model.global_scale 3", ("model.global_scale",)),
    ("igd", "--model.global_scale.weight 0 --model.local_scale.weight 0", ("model.global_scale.weight",)),
    ("padim", "--trainer.accelerator gpu --trainer.devices 64", ("trainer.accelerator",)),
    ("padim", "--trainer 3", ("trainer",)),
    ("padim", "--data.root configs/padim_folder.yaml", ("configs/padim_folder.yaml",)),
    ("folder", "--data.root nowhere", ("nowhere: ", "no such folder")),
    ("folder", "--data.layout nothing.csv", ("nothing.csv", "--data.layout")),
    ("folder", "--data.root ''", ("data.root is empty",)),
    ("folder", "--data.root /dev/null", ("/dev/null",)),
    ("folder", "--data.cache_dir configs/padim_folder.yaml", ("padim_folder.yaml",)),
    ("folder", "--data.cache_dir /proc/nowhere", ("/proc/nowhere",)),
    ("padim", "--trainer.logger.init_args.save_dir configs/padim_folder.yaml", ("padim_folder.yaml",)),
    ("padim", "--trainer.logger.init_args.save_dir /proc/nowhere", ("/proc/nowhere",)),
    ("padim", "--trainer.default_root_dir configs/padim_folder.yaml --trainer.logger false", ("padim_folder.yaml",)),
    (
        "padim",
        "--trainer.logger.init_args.version version_0",
        ("version_0", "this folder already contains another run"),
    ),
    ("padim", "--ckpt_path runs/nothing", ("runs/nothing", "no such run")),
    ("padim", "--ckpt_path ''", ("--ckpt_path is empty",)),
    (
        "padim",
        "--ckpt_path runs/ccd_synthetic --trainer.logger.init_args.version new",
        ("runs/ccd_synthetic", "CCD", "PaDiM"),
    ),
    ("padim", "--ckpt_path", ("ckpt_path",)),
    ("padim", "--config", ("config",)),
    ("padim", "--model.blur", ("model.blur has no value",)),
    ("padim", "--data.seed 3", ("--data.seed", "--seed_everything")),
    (
        "ccd",
        "--model.contrastive_weight 0 --model.augmentation_weight 0 --model.position_weight 0 --data.views.pairs 0",
        ("model.contrastive_weight",),
    ),
)


def _said(option: str, value: str) -> tuple[str, ...]:
    shown = value.strip("'").replace(".nan", "nan").replace(".inf", "inf")
    reworded = shown.startswith(("[", "{")) or option.startswith(
        "trainer."
    )  # which Lightning checks, or in another form
    return (option,) if reworded else (option, shown)


def _case(kind: str, option: str, value: str, place: int) -> Case:
    """An option with the value that is at a place in its row; the first two are tried in each run."""
    quoted = value if value.startswith("'") else f"'{value}'"
    words, name = f"{FIT[kind]} --{option}={quoted}", f"{kind} {option}={value}"
    return Case(words, _said(option, value), name=name, rare=place >= OFTEN)


CASES = (
    *(_case(kind, option, value, place) for kind, option, values in VALUES for place, value in enumerate(values)),
    *(Case(f"{FIT[kind]} {words}", says, name=f"{kind} {words}") for kind, words, says in OTHERS),
)
