"""The playground in a browser: `access.py` and `server.py` answer it, `line.py` queues for the model, `studio.py` is the model,
`archive.py` the catalog, `static/` the page."""
