"""A local page to go through the images of a test or a prediction: `ccd view`."""
