"""Scores image files with an exported detector; needs onnxruntime, numpy and pillow, and nothing else.

python examples/score_onnx.py runs/padim_folder/latest/detector.onnx IMAGE ...

Prints path, score and decision of each image, and writes its anomaly map over it into the current folder.
"""

import json
import sys
from pathlib import Path

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

model, *files = sys.argv[1:]
session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
metadata = session.get_modelmeta().custom_metadata_map
names = [output.name for output in session.get_outputs()]
size, crop = int(metadata["size"]), json.loads(metadata["crop"]) or (0, 0, 1, 1)
low, high = json.loads(metadata["range"]) or (0, 65535)  # of grey values in images of more than 8 bits

for file in files:
    image = ImageOps.exif_transpose(Image.open(file))
    if image.mode.startswith(("I", "F")):
        image = Image.fromarray(np.rint(255 * ((np.asarray(image) - low) / (high - low)).clip(0, 1)).astype(np.uint8))
    image = image.convert("RGB")
    image = image.crop(tuple(round(edge * side) for edge, side in zip(crop, image.size * 2, strict=True)))
    image = image.resize((size, size), Image.Resampling.BILINEAR)
    pixels = np.asarray(image).transpose(2, 0, 1)[None]  # (1, 3, size, size) uint8
    if metadata["input"].startswith("float"):
        pixels = pixels.astype(np.float32) / 255
    outputs = dict(zip(names, session.run(names, {"images": pixels}), strict=True))
    decision = "" if "decision" not in outputs else "abnormal" if outputs["decision"][0] else "normal"
    print(file, f"{outputs['score'][0]:.6g}", decision)

    heat = outputs["map"][0] / max(outputs["map"].max(), 1e-12)  # of each image by itself: red is its strangest place
    red = Image.new("RGB", image.size, (255, 0, 0))
    mask = Image.fromarray((160 * heat**2).astype(np.uint8))
    Image.composite(red, image, mask).save(f"{Path(file).stem}_map.png")
