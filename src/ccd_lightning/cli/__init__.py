"""The command line. Commands that need neither torch nor Lightning import neither."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Sequence

from ccd_lightning import __version__
from ccd_lightning.cli.plain_warnings import plain_warnings, printable
from ccd_lightning.errors import Terminated, UserError
from ccd_lightning.similar import did_you_mean, similar

HELP = """\
usage: ccd COMMAND [options]

Unsupervised anomaly detection in medical images: learns from normal images, detects and outlines anomalies.

train and test (all options of LightningCLI can be used; ccd fit --help lists them)
  fit       --config NAME        pretrain an encoder (ccd_*, simclr_*, pmsacl_*) or fit a detector (neighbours_*,
                                 mahalanobis_*, padim_*, igd_*, ensemble_*); NAME is a shipped config or your own file
  test      [--ckpt_path RUN]    evaluate a run on its test images; default: the newest finished run
  validate  [--ckpt_path RUN]    score the held-out normal images of a run
  predict   [--ckpt_path RUN]    score the test images of a run without reading labels
            [--images PLACE ...] score any images, and write overlays and maps

data and results
  data      check --root DIR     open every file, and report leaks and other problems
            prepare --root DIR   write a split without leaks, and images at working size
            list, synthesize     list data sets and layouts; generate synthetic data sets
  compare   RUN RUN ...          show the metrics of tested runs, and compare each with the first by a paired test
  view      RUN                  go through the test images of a run in a browser
  study     STUDY                run encoders x detectors x data sets x seeds, and write tables
  export    [--ckpt_path RUN]    write a detector as ONNX, checked against PyTorch
  encoders  [PATTERN]            list networks for the encoder, and which weights are on this machine

`ccd COMMAND --help` lists the options of a command.

checkpoints that name classes of your own (test, validate, predict, export, view)
  --trust                        import these classes; they can run any code, so use it only for checkpoints that you
                                 trust

exit codes: 0 success; 2 error; 3 predict skipped images, or runs of a study failed; 130 Ctrl-C; 143 SIGTERM
  --version   the version        --debug   show the traceback of an error        -h, --help   this text

A first run:  ccd fit --config ccd_synthetic
              ccd fit --config padim_synthetic
              ccd test
"""
TRAINING = ("fit", "validate", "test", "predict")
COMMANDS = (*TRAINING, "data", "compare", "view", "study", "export", "encoders")
BROKEN_PIPE = 141  # exit code that shells report for a broken pipe


def main(args: Sequence[str] | None = None) -> int:
    """Runs one command.

    Args:
        args: Arguments after `ccd`. None uses those of the command line.

    Returns:
        The exit code: 0 for success, 2 for a user error, 3 if a prediction skipped images or runs of a study failed,
        130 after Ctrl-C, 141 if the reader of the output has closed it, 143 after SIGTERM.
    """
    _print_all_names()
    argv = list(sys.argv[1:] if args is None else args)
    debug = "--debug" in argv
    try:
        with plain_warnings():
            code = _run([arg for arg in argv if arg != "--debug"])
        sys.stdout.flush()
        return code
    except BrokenPipeError:
        if not _is_stdout_closed():  # the pipe of a process that died
            raise
        return BROKEN_PIPE
    except UserError as error:
        if debug:
            raise
        return _print_error(error)
    except (OSError, MemoryError, RuntimeError) as error:
        from ccd_lightning.cli.failures import failure

        if debug or not (failed := failure(error)):
            raise
        return _print_error(failed)
    except KeyboardInterrupt as interrupt:
        print(f"ccd: interrupted. {interrupt}".strip(), file=sys.stderr)
        return 130
    except Terminated as stop:
        print(f"ccd: terminated. {stop}".strip(), file=sys.stderr)
        return 143


def _print_error(error: UserError) -> int:
    """Prints an error message and returns its exit code."""
    # A worker process wraps its error in a traceback as text; the message is at its end.
    text = str(error).rpartition("UserError: ")[2].strip()
    print(f"ccd: {printable(text)}", file=sys.stderr)
    return 2


def _print_all_names() -> None:
    """Makes file names printable that are not UTF-8, as in archives created on other systems."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _is_stdout_closed() -> bool:
    """Returns whether the reader of stdout has closed it, as `head` does. If so, further output is discarded."""
    try:
        print(flush=True)  # output that could not be written before is lost
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more at exit
        return True
    return False


def _run(argv: list[str]) -> int:
    command = argv[0] if argv else "--help"
    if command in ("-h", "--help"):
        print(HELP, end="")
    elif command == "--version":
        print(f"ccd-lightning {__version__}")
    elif command == "data":
        from ccd_lightning.cli.data import run_data

        run_data(argv[1:])
    elif command == "compare":
        from ccd_lightning.cli.compare import run_compare

        run_compare(argv[1:])
    elif command == "view":
        from ccd_lightning.cli.view import run_view

        run_view(argv[1:])
    elif command == "export":
        from ccd_lightning.cli.export import run_export

        run_export(argv[1:])
    elif command == "encoders":
        from ccd_lightning.cli.encoders import run_encoders

        run_encoders(argv[1:])
    elif command == "study":
        from ccd_lightning.cli.study import run_study

        return run_study(argv[1:])
    elif command in TRAINING:
        from ccd_lightning.cli.training import run_training

        return run_training(argv)
    else:
        hint = did_you_mean(similar(command, COMMANDS), "ccd --help lists them.")
        raise UserError(f"There is no command {command!r}; {hint}")
    return 0
