"""An installation: a Prefect server, workers and deployments for one data root, described by a site file."""
