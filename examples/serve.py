"""An exported detector behind HTTP: POST an image, get its score and decision, or its anomaly map as a picture.

pip install fastapi uvicorn onnxruntime numpy pillow
MODEL=runs/padim_folder/latest/detector.onnx uvicorn --app-dir examples serve:app
curl --data-binary @a.png http://127.0.0.1:8000/score
curl --data-binary @a.png http://127.0.0.1:8000/overlay --output a_overlay.png

It needs the exported file alone, not this package. It is a demonstration, not a medical device: add authentication,
TLS, logging and limits of your own before anybody else can reach it.
"""

import io
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, HTTPException, Request, Response
from fastapi.concurrency import run_in_threadpool

from score_onnx import Detector, draw_overlay, open_rgb

LARGEST = 64 * 2**20  # bytes of a request


@asynccontextmanager
async def load_model(app: FastAPI) -> AsyncIterator[None]:
    """Reads the model once, when the server starts."""
    app.state.detector = Detector(os.environ.get("MODEL") or sys.exit("Set MODEL to an exported .onnx file."))
    yield


app = FastAPI(title="Anomaly detector", lifespan=load_model)


async def body(request: Request) -> bytes:
    """The request's image file, refused while it is read if it is too large."""
    content = bytearray()
    async for part in request.stream():
        content += part
        if len(content) > LARGEST:
            raise HTTPException(413, f"The image has more than {LARGEST} bytes.")
    return bytes(content)


def read(content: bytes, detector: Detector) -> Any:
    """The image of a request's body."""
    try:
        return open_rgb(io.BytesIO(content), detector.metadata)
    except (OSError, ValueError, SystemExit) as error:
        raise HTTPException(400, f"The body is not an image that can be read: {error}") from error


@app.get("/health")
def health(request: Request) -> dict[str, str]:
    """Which model is served."""
    metadata = request.app.state.detector.metadata
    return {name: metadata[name] for name in ("model", "encoder", "version")}


@app.post("/score")
async def score(request: Request) -> dict[str, float | str | None]:
    """Score, threshold and decision; the decision is null where the run has no threshold."""
    detector: Detector = request.app.state.detector
    image = read(await body(request), detector)
    found = await run_in_threadpool(detector.score, image)
    threshold = detector.metadata["threshold"]
    return {
        "score": found.score,
        "threshold": float(threshold) if threshold else None,
        "decision": found.decision or None,
    }


@app.post("/overlay")
async def overlay(request: Request) -> Response:
    """The image with its anomaly map over it, as PNG."""
    detector: Detector = request.app.state.detector
    image = read(await body(request), detector)
    found = await run_in_threadpool(detector.score, image)
    stream = io.BytesIO()
    draw_overlay(image, found.map, detector.metadata).save(stream, "png")
    return Response(stream.getvalue(), media_type="image/png")
