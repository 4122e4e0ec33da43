"""Options of `ccd data`."""

from __future__ import annotations

from pathlib import Path

from ccd_lightning.cli.arguments import Arguments, Subcommand, path_type


def data_parser() -> Arguments:
    """Returns the parser of the command and its subcommands."""
    parser = Arguments("ccd data", description="List, check, prepare and generate data sets.")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND", parser_class=Subcommand)
    shown = commands.add_parser("list", help="list data sets on this machine, and known layouts")
    shown.add_argument("--root", type=path_type, default=Path("data"), help="folder with the data sets; default: data")

    seen = _reading(commands.add_parser("check", help="open every file, and report leaks and other problems"))
    seen.add_argument(
        "--output", type=path_type, default=Path("data_check"), help="folder for the report; default: data_check"
    )
    seen.add_argument(
        "--table_only",
        action="store_true",
        help="check only the split; images are opened only to count their pages",
    )

    made = _reading(
        commands.add_parser("prepare", help="write the split to a table, and on request images at working size")
    )
    made.add_argument("--output", type=path_type, help="table to write; default: NAME.csv, after the data set's folder")
    made.add_argument("--keep_leaks", action="store_true", help="keep training images that are also in the test set")
    made.add_argument("--copy", type=path_type, help="folder for images and masks, as PNG at working size")
    for sub, what in ((seen, "at which lesions are measured"), (made, "of the images that --copy writes")):
        sub.add_argument(
            "--size",
            "--data.size",
            type=int,
            nargs="+",
            default=[256],
            help=f"side, or height and width, in px {what}; default: 256",
        )
        sub.add_argument(
            "--crop",
            "--data.crop",
            nargs="+",
            metavar="LEFT TOP RIGHT BOTTOM",
            help="part of the image to use, as fractions; or auto, to detect the content of frames with a dark margin",
        )
        sub.add_argument(
            "--fit",
            "--data.fit",
            default="squash",
            help="how images of another shape are fitted: squash, letterbox or crop",
        )
    _synthesis(commands.add_parser("synthesize", help="generate synthetic images, with exact masks"))
    return parser


def _reading(parser: Arguments) -> Arguments:
    parser.add_argument(
        "--root", "--data.root", type=path_type, required=True, help="the data set's folder, or a manifest (.csv)"
    )
    parser.add_argument(
        "--layout",
        "--data.layout",
        default="auto",
        help="name of the layout, a manifest (.csv), or a data module of your own (module.Class); default: recognised",
    )
    parser.add_argument(
        "--window",
        "--data.window",
        metavar="WINDOW",
        help="grey values that become black and white, in images of more than 8 bits, as --data.window: '[LOW, HIGH]',"
        " 'percentile [0.5, 99.5]', full, stored or stored:NAME; default: percentiles 0.01 and 99.99 of the training"
        " images",
    )
    parser.add_argument(
        "--split_seed",
        "--data.split_seed",
        type=int,
        default=0,
        help="seed of the split, if the layout defines none",
    )
    parser.add_argument(
        "--axis",
        "--data.axis",
        type=int,
        default=2,
        help="axis along which NIfTI volumes are cut: 0 sagittal, 1 coronal, 2 axial; default: 2",
    )
    parser.add_argument("--no_groups", action="store_true", help="do not group images by patient or video")
    return parser


def _synthesis(make: Arguments) -> None:
    make.add_argument("--name", choices=("colonoscopy", "fundus"), default="colonoscopy", help="which data set")
    make.add_argument("--root", type=path_type, help="folder to write; default: data/synthetic_NAME")
    make.add_argument("--size", type=int, default=128, help="side of the images in pixels; default: 128")
    make.add_argument("--seed", type=int, default=0, help="seed of the images; default: 0")
    make.add_argument("--train", type=int, default=320, help="normal training images; default: 320")
    make.add_argument("--test_good", type=int, default=200, help="normal test images; default: 200")
    make.add_argument("--test_abnormal", type=int, default=210, help="abnormal test images; default: 210")
    make.add_argument("--baselines", action="store_true", help="print the image AUROC that is reached without learning")
