"""`ccd view`: serves a local page for going through the images of a test or a prediction."""

from __future__ import annotations

import argparse
import os
import sys
import threading
import webbrowser
from pathlib import Path

from ccd_lightning.cli.arguments import Arguments, path_type
from ccd_lightning.errors import UserError

PORTS = 65535


def run_view(argv: list[str]) -> None:
    """Serves the page until Ctrl-C.

    Raises:
        UserError: If there are no results, they are damaged, or the port cannot be used.
    """
    arguments = _parser().parse_args(argv)
    from ccd_lightning.runs import newest_run
    from ccd_lightning.viewer.results import open_results
    from ccd_lightning.viewer.server import ViewServer

    path: Path = arguments.run or newest_run()
    results = open_results(path, arguments.ckpt_path)
    try:
        server = ViewServer(results, arguments.port, arguments.trust)
    except OSError as error:
        raise UserError(
            f"--port {arguments.port}: cannot be used ({error.strerror}). Give another one, or leave it out."
        ) from error
    with server:
        print(f"{os.path.relpath(results.folder)}: {len(results.rows)} images at {server.url}", flush=True)
        print("For this machine only. Ctrl-C ends it.", flush=True)
        server.warm_up()
        if not arguments.no_browser and _has_screen():
            threading.Thread(target=webbrowser.open, args=[server.url], daemon=True).start()
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            print("\nStopped.")


def _has_screen() -> bool:
    """Returns whether a browser can open a window. Otherwise a text browser would take over the terminal."""
    return sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))


def _port(text: str) -> int:
    if not (text.isdecimal() and text.isascii() and int(text) <= PORTS):
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {PORTS}")
    return int(text)


def _parser() -> Arguments:
    parser = Arguments(
        "ccd view",
        description="Go through the images of a test in a browser: by score, kind, and hit or miss at any threshold,"
        " with the anomaly map over each image. The page is for this machine only and needs no network.",
    )
    parser.add_argument(
        "run",
        nargs="?",
        type=path_type,
        metavar="RUN",
        help="a tested run's folder, the folder of its versions, or a folder that ccd predict --images wrote; default:"
        " the newest finished run",
    )
    parser.add_argument("--port", type=_port, default=0, metavar="N", help="default: one that is free")
    parser.add_argument("--no-browser", action="store_true", help="print the address, but do not open it")
    parser.add_argument(
        "--ckpt_path",
        type=path_type,
        metavar="RUN",
        help="the run or checkpoint that draws the maps; default: the run's own",
    )
    parser.add_argument(
        "--trust",
        action="store_true",
        help="run code of a detector that is not this program's, named in the checkpoint",
    )
    return parser
