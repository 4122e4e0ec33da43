"""`ccd view`: a local page for going through the images of a test or a prediction."""
